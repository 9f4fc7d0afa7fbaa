"""Reliability of probabilities: a histogram that does not grow, against a computation over all pixels at once."""

import numpy as np
import pytest
from PIL import Image

from rrsis.calibration import NUM_BINS, Reliability


def collected(probabilities, truths):
    reliability = Reliability()
    for probability, truth in zip(probabilities, truths, strict=True):
        reliability.update(probability, truth)
    return reliability


def test_equals_a_computation_over_all_pixels_at_once():
    generator = np.random.default_rng(0)
    shapes = [(5, 9), (30, 20), (1, 1), (64, 64)]
    probabilities = [generator.random(shape).astype(np.float32) for shape in shapes]
    truths = [generator.random(shape) < 0.4 for shape in shapes]
    content = collected(probabilities, truths).to_dict()
    p = np.concatenate([array.ravel() for array in probabilities]).astype(np.float64)
    y = np.concatenate([array.ravel() for array in truths])
    error = 0.0
    for k in range(NUM_BINS):
        inside = (p >= k / NUM_BINS) & (p < (k + 1) / NUM_BINS)
        error += inside.sum() / p.size * abs(p[inside].mean() - y[inside].mean())
    assert content["num_pixels"] == p.size
    assert content["ece"] == pytest.approx(error)
    assert content["brier"] == pytest.approx(((p - y) ** 2).mean())
    assert content["predicted"]["mean_probability"] == pytest.approx(p[p >= 0.5].mean())
    assert content["predicted"]["share_true"] == pytest.approx(y[p >= 0.5].mean())


def test_calibrated_and_overconfident_probabilities():
    generator = np.random.default_rng(1)
    p = generator.random((400, 400))
    truth = generator.random((400, 400)) < p
    assert collected([p], [truth]).expected_error() < 0.01
    sure = np.where(p > 0.5, 0.99, 0.01)
    assert collected([sure], [truth]).expected_error() == pytest.approx(0.24, abs=0.02)


def test_ends_of_the_range_and_no_prediction():
    content = collected([np.array([[0.0, 0.0]])], [np.array([[False, True]])]).to_dict()
    assert content["predicted"] is None
    assert content["ece"] == content["brier"] == 0.5
    content = collected([np.array([[1.0, 0.5]])], [np.array([[True, True]])]).to_dict()
    assert [entry["from"] for entry in content["bins"]] == [0.5, pytest.approx(0.95)]


def test_shards_add_up():
    generator = np.random.default_rng(2)
    arrays = [generator.random((8, 8)) for _ in range(4)]
    truths = [array > 0.3 for array in arrays]
    halves = collected(arrays[:2], truths[:2]).merge(collected(arrays[2:], truths[2:]))
    assert halves.to_dict()["ece"] == pytest.approx(collected(arrays, truths).to_dict()["ece"])


def test_the_picture(tmp_path):
    generator = np.random.default_rng(3)
    p = generator.random((50, 50))
    collected([p], [p > 0.4]).save_diagram(tmp_path / "reliability.png")
    with Image.open(tmp_path / "reliability.png") as picture:
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert [path.name for path in tmp_path.iterdir()] == ["reliability.png"]


def test_bad_input_is_refused():
    reliability, truth = Reliability(), np.ones((2, 2), bool)
    for values in (np.full((2, 2), 1.5), np.full((2, 2), np.nan), np.full((2, 2), -0.1)):
        with pytest.raises(ValueError, match="probabilities: got NaN or values outside"):
            reliability.update(values, truth)
    with pytest.raises(ValueError, match=r"probabilities: got shape \(3, 2\)"):
        reliability.update(np.zeros((3, 2)), truth)
    with pytest.raises(ValueError, match="no pixels were added"):
        reliability.to_dict()
