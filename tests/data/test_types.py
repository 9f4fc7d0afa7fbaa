import numpy as np
import pytest

from rrsis.data import DATASETS, SPLITS, ReferringSample, build_dataset
from rrsis.data.types import clean_expression


def sample(**changes):
    values = {
        "image": np.zeros((4, 5, 3), np.uint8),
        "expression": "the ship",
        "mask": np.ones((4, 5), bool),
        "sample_id": "a-0",
        "image_id": "a",
    }
    return ReferringSample(**{**values, **changes})


def test_a_sample_knows_its_area():
    assert sample().area == 20
    assert sample().category is None
    assert sample().kind is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((4, 5, 3))}, "image: got float64"),
        ({"image": np.zeros((4, 5), np.uint8)}, "image: got uint8"),
        ({"mask": np.ones((4, 5))}, "mask: got float64"),
        ({"mask": np.ones((5, 4), bool)}, r"mask: got bool \(5, 4\), due is bool \(4, 5\)"),
    ],
)
def test_a_sample_of_wrong_arrays_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sample(**changes)


def test_blanks():
    assert clean_expression("  the   red\tship \n") == "the red ship"


def test_building_by_name():
    data = build_dataset("synthetic", "val", num_scenes=2, seed=4, config="hard")
    assert (data.name, data.split, len(data)) == ("synthetic", "val", 8)
    assert set(DATASETS) == {"synthetic", "refsegrs", "rrsisd", "risbench"}
    assert SPLITS == ("train", "val", "test")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("coco", "train"), {}, ValueError, "name: got 'coco', due is one of refsegrs, risbench, rrsisd, synthetic"),
        (("synthetic", "dev"), {}, ValueError, "split: got 'dev'"),
        (("synthetic", "val", "somewhere"), {}, ValueError, "root: got 'somewhere'"),
        (("refsegrs", "val"), {}, ValueError, "root: refsegrs is read from disk"),
        (("refsegrs", "val", "nowhere"), {}, FileNotFoundError, "no folder nowhere"),
        (("synthetic", "val"), {"scenes": 3}, ValueError, "options: synthetic takes num_scenes, seed, config, cache"),
        (("risbench", "val", "."), {"seed": 3}, ValueError, "options: risbench takes none, got 'seed'"),
    ],
)
def test_what_cannot_be_built(arguments, options, error, message):
    with pytest.raises(error, match=message):
        build_dataset(*arguments, **options)
