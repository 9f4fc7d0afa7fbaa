"""Models, processors and data that several test files of rrsis share."""

import numpy as np
import pytest
import torch
from red_detector import RedDetector

EXPRESSIONS = ["the red square", "the red square on the left", "the nothing"]


@pytest.fixture
def one_thread():
    """Runs this process on one thread, as `training_runs.start` runs others: only then are their bits the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    config.text_config.vocab_size = len(tokenizer)
    folder = tmp_path_factory.mktemp("tiny_run")
    BTDNetForReferringSegmentation(config).save_pretrained(folder)
    build_processor(tokenizer, config.image_size, max_tokens=12).save_pretrained(folder)
    return folder


@pytest.fixture
def micro_config():
    """The smallest BTDNet with every part in place: 64 x 64 images, three narrow decoder layers."""
    from transformers import BertConfig

    from rrsis.config import make_config

    config = make_config("tiny", image_size=64, decoder_layers=3, decoder_dim=16, decoder_heads=2, num_queries=2)
    config.backbone_kwargs.update(img_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2)
    config.text_config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=20,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.bsc_num_heads, config.bsc_embed_dims = [2] * 4, [8] * 4
    config.decoder_ffn_dim = 16
    return config


@pytest.fixture
def micro_batch():
    """Two images, one with a short expression and an empty mask."""
    generator = torch.Generator().manual_seed(1)
    attention_mask = torch.ones(2, 7, dtype=torch.long)
    attention_mask[1, 4:] = 0
    labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    labels[0, 8:24, 30:50] = 1
    noun_mask = torch.zeros(2, 7, dtype=torch.bool)
    noun_mask[:, 2] = True
    return {
        "pixel_values": torch.randn(2, 3, 64, 64, generator=generator),
        "input_ids": torch.randint(5, 20, (2, 7), generator=generator),
        "attention_mask": attention_mask,
        "labels": labels,
        "noun_mask": noun_mask,
    }


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
