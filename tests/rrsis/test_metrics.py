"""rrsis.metrics against hand-made cases and an independent re-computation."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from rrsis.metrics import (
    METRIC_NAMES,
    ReferringMetrics,
    binarize,
    intersection_over_union,
    resize_mask_nearest,
)


def mask_of(*rows: str) -> np.ndarray:
    """Draws a boolean mask: '#' is True."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_hand_computed_figures():
    metrics = ReferringMetrics()
    assert metrics.update(mask_of("##..", "...."), mask_of("##..", "....")) == 1.0
    assert metrics.update(mask_of("###.", "...."), mask_of("##..", "##..")) == pytest.approx(2 / 5)
    assert metrics.update(mask_of("...#", "...."), mask_of("#...", "....")) == 0.0
    result = metrics.compute()
    assert result["oIoU"] == pytest.approx((2 + 2 + 0) / (2 + 5 + 2))
    assert result["mIoU"] == pytest.approx((1 + 0.4 + 0) / 3)
    assert result["Pr@0.5"] == result["Pr@0.9"] == pytest.approx(1 / 3)
    assert result["num_expressions"] == 3
    assert result["protocol"] == "native"
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("protocol", ["native", "rmsin"])
def test_precision_counts_an_iou_on_the_threshold(protocol):
    metrics = ReferringMetrics(protocol)
    for intersection in (5, 6, 7, 8, 9):
        metrics.add_counts(intersection, 10)
    result = metrics.compute()
    assert [result[f"Pr@0.{digit}"] for digit in (5, 6, 7, 8, 9)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize(("protocol", "iou"), [("native", 1.0), ("rmsin", 0.0)])
def test_two_empty_masks(protocol, iou):
    metrics = ReferringMetrics(protocol)
    empty = np.zeros((6, 7), dtype=bool)
    assert metrics.update(np.zeros((6, 7), dtype=np.float32), empty) == iou
    result = metrics.compute()
    assert result["oIoU"] == result["mIoU"] == result["Pr@0.5"] == iou


@pytest.mark.parametrize("protocol", ["native", "rmsin"])
def test_empty_truth_and_empty_prediction_score_zero(protocol):
    metrics = ReferringMetrics(protocol)
    empty, full = np.zeros((5, 5), dtype=bool), np.ones((5, 5), dtype=bool)
    assert metrics.update(np.zeros((5, 5), dtype=np.float32), full) == 0.0
    assert metrics.update(np.ones((5, 5), dtype=np.float32), empty) == 0.0


@pytest.mark.parametrize("protocol", ["native", "rmsin"])
def test_threshold_is_strict(protocol):
    truth = np.ones((4, 4), dtype=bool)
    metrics = ReferringMetrics(protocol)
    assert metrics.update(np.full((4, 4), 0.5), truth) == 0.0
    assert metrics.update(np.full((4, 4), np.nextafter(0.5, 1.0)), truth) == 1.0
    assert metrics.update(np.zeros((4, 4)), truth, from_logits=True) == 0.0
    assert metrics.update(np.full((4, 4), 1e-30), truth, from_logits=True) == 1.0


def test_single_pixel_object_at_native_size_and_lost_by_rmsin():
    truth = np.zeros((961, 961), dtype=bool)
    truth[0, 0] = True
    native, rmsin = ReferringMetrics("native"), ReferringMetrics("rmsin")
    assert native.update(truth, truth) == 1.0
    # The resampling to 480 misses the pixel on both sides: an empty union, which this protocol counts as a failure.
    assert rmsin.update(truth, truth) == 0.0


def bilinear(source: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resampling with pixel centres (align_corners=False), pixel by pixel in Python floats."""
    (h, w), (height, width) = source.shape, size
    out = np.zeros(size)
    for i in range(height):
        y = min(max((i + 0.5) * h / height - 0.5, 0.0), h - 1.0)
        y0 = int(y)
        y1 = min(y0 + 1, h - 1)
        for j in range(width):
            x = min(max((j + 0.5) * w / width - 0.5, 0.0), w - 1.0)
            x0 = int(x)
            x1 = min(x0 + 1, w - 1)
            top = source[y0, x0] * (1 - (x - x0)) + source[y0, x1] * (x - x0)
            bottom = source[y1, x0] * (1 - (x - x0)) + source[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_native_equals_an_independent_recomputation(data):
    sides = st.integers(1, 9)
    metrics = ReferringMetrics("native")
    intersections, unions = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        # Multiples of 1/8 keep the resampled values away from 0 by more than the two computations' rounding, or exact.
        logits = data.draw(hnp.arrays(np.float64, st.tuples(sides, sides), elements=st.integers(-16, 16))) / 8 + 0.0123
        truth = data.draw(hnp.arrays(np.bool_, st.tuples(sides, sides)))
        metrics.update(logits, truth, from_logits=True)
        predicted = bilinear(logits, truth.shape) > 0
        pairs = [(bool(p), bool(t)) for p, t in zip(predicted.ravel(), truth.ravel(), strict=True)]
        intersections.append(sum(p and t for p, t in pairs))
        unions.append(sum(p or t for p, t in pairs))
    ious = [i / u if u else 1.0 for i, u in zip(intersections, unions, strict=True)]
    result = metrics.compute()
    assert result["oIoU"] == pytest.approx(sum(intersections) / sum(unions) if sum(unions) else 1.0)
    assert result["mIoU"] == pytest.approx(sum(ious) / len(ious))
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        assert result[f"Pr@{threshold}"] == sum(iou >= threshold for iou in ious) / len(ious)


@pytest.mark.parametrize("shape", [(512, 512), (800, 787), (801, 800), (480, 480), (3, 1000), (1, 1)])
def test_rmsin_equals_the_published_arithmetic(shape):
    """Mask through PIL's nearest neighbour as torchvision does it, prediction bilinear, U = 0 counted as 0."""
    generator = np.random.default_rng(sum(shape))
    truth = generator.random(shape) > 0.7
    logits = generator.normal(size=(120, 120))
    metrics = ReferringMetrics("rmsin")
    iou = metrics.update(logits, truth, from_logits=True)

    target = np.array(Image.fromarray(truth.astype("uint8"), mode="P").resize((480, 480), Image.NEAREST))
    output = torch.nn.functional.interpolate(torch.from_numpy(logits)[None, None], (480, 480), mode="bilinear")[0, 0]
    predicted = (output > 0).numpy().astype("uint8")
    inter = np.sum(np.logical_and(predicted, target))
    union = np.sum(np.logical_or(predicted, target))
    assert iou == inter * 1.0 / union
    assert metrics.scores[0].intersection == inter
    assert metrics.scores[0].union == union


def test_resize_mask_nearest_keeps_whole_pixels():
    mask = mask_of("#.", ".#")
    assert np.array_equal(resize_mask_nearest(mask, (4, 6)), np.kron(mask, np.ones((2, 3), dtype=bool)))


def test_prediction_of_another_size_is_resized_bilinearly():
    truth = np.zeros((8, 8), dtype=bool)
    truth[:, :4] = True
    assert ReferringMetrics().update(np.array([[1.0, 0.0]]), truth) == 1.0


def test_groups_are_kept_apart_and_ungrouped_expressions_left_out():
    metrics = ReferringMetrics()
    metrics.add_counts(9, 10, "ship", kind="colour")
    metrics.add_counts(1, 10, "ship", kind="size")
    metrics.add_counts(3, 10, "bridge", kind="colour")
    metrics.add_counts(5, 10)
    by_category, by_kind = metrics.by_category(), metrics.by_kind()
    assert list(by_category) == ["bridge", "ship"]
    assert by_category["ship"]["mIoU"] == pytest.approx(0.5)
    assert by_category["bridge"]["num_expressions"] == 1
    assert by_kind["colour"]["mIoU"] == pytest.approx(0.6)
    assert metrics.compute()["num_expressions"] == 4


def test_merging_shards_equals_one_pass():
    counts = [(1, 3), (0, 7), (5, 5), (2, 9), (0, 0)]
    whole, left, right = ReferringMetrics(), ReferringMetrics(), ReferringMetrics()
    for index, (inter, union) in enumerate(counts):
        whole.add_counts(inter, union, "ship")
        (left if index % 2 else right).add_counts(inter, union, "ship")
    assert right.merge(left).compute() == whole.compute()
    with pytest.raises(ValueError, match="protocol 'rmsin'"):
        whole.merge(ReferringMetrics("rmsin"))


def test_table_names_the_protocol_in_every_line():
    metrics = ReferringMetrics("rmsin")
    metrics.add_counts(1, 3, "ship", kind="colour")
    lines = metrics.table().splitlines()
    assert len(lines) == 2 + 3
    assert all(name in lines[0] for name in METRIC_NAMES)
    assert all("rmsin" in line for line in lines[2:])
    assert [line.split("  ")[0] for line in lines[2:]] == ["all", "category: ship", "kind: colour"]
    assert "33.33" in lines[2]


def test_reset_forgets():
    metrics = ReferringMetrics()
    metrics.add_counts(1, 1)
    metrics.reset()
    assert len(metrics) == 0
    with pytest.raises(ValueError, match="at least one"):
        metrics.compute()


def test_bad_input_is_refused_with_the_arguments_name():
    truth = np.ones((4, 4), dtype=bool)
    metrics = ReferringMetrics()
    with pytest.raises(ValueError, match="protocol: got 'coco'"):
        ReferringMetrics("coco")
    with pytest.raises(TypeError, match="mask: got dtype uint8"):
        metrics.update(np.ones((4, 4)), truth.astype(np.uint8))
    with pytest.raises(ValueError, match=r"mask: got shape \(4, 4, 1\)"):
        metrics.update(np.ones((4, 4)), truth[..., None])
    with pytest.raises(ValueError, match=r"prediction: got shape \(1, 4, 4\)"):
        metrics.update(np.ones((1, 4, 4)), truth)
    with pytest.raises(TypeError, match="prediction: got dtype"):
        metrics.update(np.ones((4, 4), dtype=np.int64), truth)
    with pytest.raises(ValueError, match="NaN"):
        metrics.update(np.array([[0.1, np.nan]]), truth)
    with pytest.raises(ValueError, match="from_logits=True"):
        metrics.update(np.full((4, 4), 3.0), truth)
    with pytest.raises(ValueError, match="boolean mask of shape"):
        metrics.update(np.ones((2, 2), dtype=bool), truth)
    with pytest.raises(ValueError, match="intersection, union"):
        metrics.add_counts(3, 2)
    assert len(metrics) == 0


def test_half_precision_predictions_are_scored():
    truth = np.array([[True, False]])
    for dtype in (torch.float16, torch.bfloat16):
        assert ReferringMetrics().update(torch.tensor([[2.0, -2.0]], dtype=dtype), truth, from_logits=True) == 1.0


def test_boolean_prediction_is_resized_under_rmsin():
    mask = resize_mask_nearest(mask_of("#.", ".."), (200, 300))
    assert ReferringMetrics("rmsin").update(mask_of("#.", ".."), mask) == 1.0
    assert binarize(mask, (480, 480), resize_masks=True).shape == (480, 480)


def test_iou_of_an_empty_union_depends_on_the_protocol():
    assert intersection_over_union(0, 0, "native") == 1.0
    assert intersection_over_union(0, 0, "rmsin") == 0.0
