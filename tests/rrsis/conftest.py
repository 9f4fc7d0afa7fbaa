"""Models, processors and data that several test files of rrsis share."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

EXPRESSIONS = ["the red square", "the red square on the left", "the nothing"]


class RedDetector(torch.nn.Module):
    """Has the model's interface and a known answer: red pixels, whatever the expression says.

    It works at half the input's resolution, undoes the processor's normalisation and thresholds the red channel at 0.5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(20.0))
        self.modes = []

    def forward(self, pixel_values, input_ids, attention_mask):
        assert len(pixel_values) == len(input_ids) == len(attention_mask)
        self.modes.append((self.training, torch.is_grad_enabled()))
        red = pixel_values[:, 0] * 0.229 + 0.485
        red = torch.nn.functional.avg_pool2d(red[:, None], 2)[:, 0]
        return SimpleNamespace(logits=self.gain * (red - 0.5))


@pytest.fixture
def red_detector():
    return RedDetector()


@pytest.fixture(scope="session")
def small_processor():
    """A real processor of 64 x 64 inputs with a vocabulary of its own."""
    from rrsis.processing import build_processor, build_tokenizer

    return build_processor(build_tokenizer(EXPRESSIONS, max_tokens=12), image_size=64, max_tokens=12)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run folder with the real tiny model, randomly initialised, and its processor."""
    from rrsis.config import make_config
    from rrsis.model import BTDNetForReferringSegmentation
    from rrsis.processing import build_processor, build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(EXPRESSIONS, max_tokens=12)
    config = make_config("tiny")
    config.text_config["vocab_size"] = len(tokenizer)
    folder = tmp_path_factory.mktemp("tiny_run")
    BTDNetForReferringSegmentation(config).save_pretrained(folder)
    build_processor(tokenizer, config.image_size, max_tokens=12).save_pretrained(folder)
    return folder


def red_square(size=(64, 64), box=(16, 16, 32, 32)):
    """A black image with a red rectangle (top, left, bottom, right), and the rectangle's mask."""
    mask = np.zeros(size, dtype=bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[mask] = (255, 0, 0)
    return image, mask


@pytest.fixture(name="red_square")
def red_square_fixture():
    return red_square
