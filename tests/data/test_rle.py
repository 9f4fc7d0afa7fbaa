"""Run-length masks: what is written is read back, by pycocotools too, and nothing broken passes for a mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from rrsis.data.rle import decode_mask, encode_mask


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_round_trip_here_and_in_pycocotools(mask):
    runs = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(runs), mask)
    np.testing.assert_array_equal(coco_mask.decode({**runs, "counts": runs["counts"].encode()}), mask)


@pytest.mark.parametrize("shape", [(1, 1), (800, 787), (3, 5000)])
@pytest.mark.parametrize("fill", ["empty", "full", "noise", "one"])
def test_long_runs(shape, fill):
    mask = np.zeros(shape, bool) if fill in ("empty", "one") else np.ones(shape, bool)
    if fill == "noise":
        mask = np.random.default_rng(0).random(shape) > 0.5
    if fill == "one":
        mask[-1, -1] = True
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_forms_of_counts():
    mask = np.zeros((4, 3), bool)
    mask[1:3, 1] = True
    compressed = encode_mask(mask)
    for counts in (compressed["counts"], compressed["counts"].encode(), [5, 2, 5]):
        np.testing.assert_array_equal(decode_mask({"size": (4, 3), "counts": counts}), mask)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (None, "got None, due are size and counts"),
        ({"counts": "0"}, "got \\['counts'\\]"),
        ({"size": [5], "counts": "0"}, "its size is"),
        ({"size": [5, 0], "counts": ""}, "its size is"),
        ({"size": [5.0, 5.0], "counts": ""}, "its size is"),
        ({"size": [5, 5], "counts": 25}, "neither a string nor a list"),
        ({"size": [5, 5], "counts": [12.5, 12.5]}, "neither a string nor a list"),
        # pycocotools makes masks of the next four out of whatever the memory holds.
        ({"size": [5, 5], "counts": ""}, "cover 0 pixels"),
        ({"size": [5, 5], "counts": "0"}, "cover 0 pixels"),
        ({"size": [5, 5], "counts": "09"}, "cover 9 pixels"),
        ({"size": [5, 5], "counts": "015000000"}, "due are 5 x 5 = 25"),
        ({"size": [5, 5], "counts": "01500000005"}, "due are 5 x 5 = 25"),
        ({"size": [5, 5], "counts": [30, -5]}, "shortest -5"),
        ({"size": [5, 5], "counts": "0`"}, "break off"),
        ({"size": [5, 5], "counts": "0 9"}, "the character ' '"),
        ({"size": [5, 5], "counts": "0é"}, "the character"),
    ],
)
def test_broken_runs_are_refused(runs, message):
    with pytest.raises(ValueError, match=message):
        decode_mask(runs)


def test_only_boolean_masks_are_written():
    with pytest.raises(TypeError, match="mask: got dtype uint8"):
        encode_mask(np.zeros((2, 2), np.uint8))
