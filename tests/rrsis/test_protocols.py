"""Both protocols against a second account of them: numpy and Pillow alone, nothing of rrsis.metrics.

Everything goes the way of ``python -m rrsis.evaluate``: logits, post-processing, scoring, and once more from the file.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from rrsis.data.types import ReferringDataset, ReferringSample
from rrsis.evaluate import evaluate_model
from rrsis.predictions import read_predictions, write_predictions
from rrsis.rescoring import score_predictions

RANDOM = np.random.default_rng(3)


def noise(shape, share=0.3):
    return RANDOM.random(shape) < share


def one_pixel(shape, row, column):
    mask = np.zeros(shape, bool)
    mask[row, column] = True
    return mask


def blob(shape):
    """Logits with structure: positive inside an ellipse, never near zero at the samples."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / np.array(shape)[:, None, None]
    return (8 * (0.1 - (x - 0.4) ** 2 - 1.7 * (y - 0.55) ** 2)).astype(np.float32)


def off(shape=(32, 32)):
    return np.full(shape, -4.0, np.float32)


# name -> (logits at the model's resolution, true mask at the image's own size)
CASES = {
    "empty prediction": (off(), noise((64, 48))),
    "empty truth": (blob((32, 32)), np.zeros((64, 48), bool)),
    "both empty": (off(), np.zeros((50, 70), bool)),
    "all of both": (-off(), np.ones((33, 21), bool)),
    "one true pixel": (blob((32, 32)), one_pixel((800, 787), 401, 333)),
    "one true pixel, lost at 480": (off(), one_pixel((961, 961), 0, 0)),
    "one predicted pixel": (np.where(one_pixel((32, 32), 9, 9), 3.0, -9.0).astype(np.float32), noise((32, 32))),
    "a pixel for an image": (-off(), np.ones((1, 1), bool)),
    "larger than the network": (blob((32, 32)), noise((801, 640), 0.5)),
    "smaller than the network": (blob((32, 32)), noise((17, 9), 0.5)),
    "512 to 480 samples on borders": (blob((32, 32)), noise((512, 512))),
    "noise": (RANDOM.normal(size=(32, 32)).astype(np.float32), noise((100, 100))),
}


class Cases(ReferringDataset):
    name, split = "cases", "test"

    def __len__(self):
        return len(CASES)

    def __getitem__(self, index):
        mask = list(CASES.values())[index][1]
        # The image's only pixels say which case it is.
        image = np.full((*mask.shape, 3), index, np.uint8)
        return ReferringSample(image, "the thing", mask, self.sample_ids[index], f"image {index // 2}")

    @property
    def sample_ids(self):
        return list(CASES)


class Oracle(torch.nn.Module):
    """Answers each case with its logits."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, pixel_values, input_ids, attention_mask):
        numbers = (pixel_values[:, 0, 0, 0] * 0.229 + 0.485) * 255
        logits = [list(CASES.values())[round(float(number))][0] for number in numbers]
        return SimpleNamespace(logits=torch.from_numpy(np.stack(logits)))


def bilinear(source, height, width):
    """Half-pixel centres, borders repeated: the interpolation of the networks, in float64."""

    def weights(size, due):
        place = np.clip((np.arange(due) + 0.5) * size / due - 0.5, 0, size - 1)
        matrix = np.zeros((due, size))
        low = np.floor(place).astype(int)
        matrix[np.arange(due), low] += 1 - (place - low)
        matrix[np.arange(due), np.minimum(low + 1, size - 1)] += place - low
        return matrix

    return weights(source.shape[0], height) @ source.astype(np.float64) @ weights(source.shape[1], width).T


def recomputed(protocol):
    """(intersection, union, IoU) of every case, and the figures over all."""
    rows = []
    for logits, truth in CASES.values():
        if protocol == "rmsin":
            truth = np.asarray(Image.fromarray(truth.astype(np.uint8) * 255).resize((480, 480), Image.NEAREST)) > 127
        predicted = bilinear(logits, *truth.shape) > 0
        both, either = int((predicted & truth).sum()), int((predicted | truth).sum())
        rows.append((both, either, both / either if either else {"native": 1.0, "rmsin": 0.0}[protocol]))
    ious = [row[2] for row in rows]
    figures = {"oIoU": sum(row[0] for row in rows) / sum(row[1] for row in rows), "mIoU": sum(ious) / len(ious)}
    return rows, figures | {f"Pr@{x}": sum(iou >= x for iou in ious) / len(ious) for x in (0.5, 0.6, 0.7, 0.8, 0.9)}


@pytest.fixture(scope="module")
def evaluated():
    from rrsis.processing import build_processor, build_tokenizer

    processor = build_processor(build_tokenizer(["the thing"]), image_size=32, max_tokens=6)
    return evaluate_model(Oracle(), processor, Cases(), batch_size=5, num_worst=2, progress=False)


@pytest.mark.parametrize("protocol", ["native", "rmsin"])
def test_every_case_and_the_figures_equal_the_recomputation(evaluated, protocol):
    rows, figures = recomputed(protocol)
    for scored, (intersection, union, iou) in zip(evaluated.expressions, rows, strict=True):
        got = scored.scores[protocol]
        assert (got["intersection"], got["union"]) == (intersection, union), scored.sample_id
        assert got["iou"] == pytest.approx(iou)
    for name, value in figures.items():
        assert evaluated.overall(protocol)[name] == pytest.approx(value), name


def test_the_cases_are_what_they_are_called(evaluated):
    scores = {scored.sample_id: scored.scores for scored in evaluated.expressions}
    assert scores["both empty"]["native"]["iou"] == 1.0
    assert scores["both empty"]["rmsin"]["iou"] == 0.0
    assert scores["one true pixel, lost at 480"]["rmsin"]["union"] == 0
    assert scores["one true pixel, lost at 480"]["native"]["union"] == 1
    assert scores["a pixel for an image"]["native"] == {"intersection": 1, "union": 1, "iou": 1.0}
    assert scores["empty truth"]["native"]["iou"] == 0.0
    assert scores["one predicted pixel"]["native"]["union"] > 1


def test_scores_from_the_file_are_the_same_under_both_protocols(evaluated, tmp_path):
    write_predictions(tmp_path / "p.json", evaluated.predictions, "cases", "test")
    again = score_predictions(read_predictions(tmp_path / "p.json"), Cases(), bootstrap=evaluated.bootstrap)
    assert [vars(scored) for scored in again.expressions] == [vars(scored) for scored in evaluated.expressions]
    assert again.figures == evaluated.figures


def test_rmsin_without_its_own_masks_resizes_as_it_does_the_truth(evaluated, tmp_path):
    for prediction in evaluated.predictions:
        object.__setattr__(prediction, "segmentation_480", None)
    write_predictions(tmp_path / "p.json", evaluated.predictions, "cases", "test")
    again = score_predictions(read_predictions(tmp_path / "p.json"), Cases())
    for scored, (logits, truth) in zip(again.expressions, CASES.values(), strict=True):
        square = [
            np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((480, 480), Image.NEAREST)) > 127
            for mask in (bilinear(logits, *truth.shape) > 0, truth)
        ]
        assert scored.scores["rmsin"]["intersection"] == (square[0] & square[1]).sum()
        assert scored.scores["rmsin"]["union"] == (square[0] | square[1]).sum()


def test_a_data_set_without_names_is_evaluated_too(evaluated):
    class Plain(Dataset):
        __len__, __getitem__ = Cases.__len__, lambda self, index: Cases()[index]

    assert evaluated.dataset == "cases"
    from rrsis.processing import build_processor, build_tokenizer

    processor = build_processor(build_tokenizer(["the thing"]), image_size=32, max_tokens=6)
    result = evaluate_model(Oracle(), processor, Plain(), limit=2, bootstrap=None, progress=False)
    assert (result.dataset, result.split) == ("Plain", "")
    assert "intervals" not in result.figures["native"]["overall"]
