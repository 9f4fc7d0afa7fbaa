"""Bootstrap intervals: of images, seeded, and as wide as they should be."""

import numpy as np
import pytest

from rrsis.confidence import Bootstrap
from rrsis.metrics import ReferringMetrics


def slow_interval(clusters, numerators, denominators, resamples, seed):
    """The same thing resample by resample, with lists."""
    names = sorted(set(clusters))
    generator, figures = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = [names[k] for k in generator.integers(0, len(names), len(names))]
        members = [i for name in drawn for i, cluster in enumerate(clusters) if cluster == name]
        figures.append(sum(numerators[i] for i in members) / sum(denominators[i] for i in members))
    return figures


def test_equals_resampling_one_by_one():
    clusters = ["a", "a", "b", "c", "c", "c", "d"]
    generator = np.random.default_rng(1)
    denominators = generator.integers(10, 20, 7)
    numerators = generator.integers(0, 10, 7)
    figures = slow_interval(clusters, numerators, denominators, 300, seed=4)
    found = Bootstrap(300, seed=4, level=0.9).ratio_intervals(clusters, {"x": (numerators, denominators)}, empty=0.0)
    assert found["x"] == pytest.approx(np.quantile(figures, [0.05, 0.95]).tolist())
    assert (found["level"], found["num_images"]) == (0.9, 4)


def test_memory_is_bounded_and_chunks_change_nothing(monkeypatch):
    clusters, ones = list(range(50)), np.ones(50)
    ratios = {"x": (np.arange(50), ones)}
    whole = Bootstrap(40).ratio_intervals(clusters, ratios, 0.0)
    monkeypatch.setattr("rrsis.confidence._DRAWS_AT_ONCE", 120)
    assert Bootstrap(40).ratio_intervals(clusters, ratios, 0.0) == whole


def test_repeated_expressions_about_an_image_do_not_narrow_the_interval():
    ious = np.random.default_rng(0).random(40)

    def width(times, own_image):
        metrics = ReferringMetrics()
        for image, iou in enumerate(ious):
            for _ in range(times):
                metrics.add_counts(round(1000 * iou), 1000, image_id=f"i{image}" if own_image else None)
        low, high = metrics.compute(Bootstrap(400))["intervals"]["mIoU"]
        return high - low

    assert width(9, own_image=True) == pytest.approx(width(1, own_image=True))
    assert width(9, own_image=False) < 0.45 * width(1, own_image=False)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    generator, held = np.random.default_rng(0), 0
    for _ in range(100):
        values = generator.random(60)
        low, high = Bootstrap(200).ratio_intervals(range(60), {"x": (values, np.ones(60))}, 0.0)["x"]
        held += low <= 0.5 <= high
    assert 88 <= held <= 99


def test_seed_decides():
    metrics = ReferringMetrics()
    for k in range(12):
        metrics.add_counts(k, 12, image_id=str(k // 2))
    first, again, other = (metrics.compute(Bootstrap(50, seed))["intervals"] for seed in (0, 0, 1))
    assert first == again != other
    assert first["num_images"] == 6


def test_one_image_says_nothing_about_others():
    metrics = ReferringMetrics()
    metrics.add_counts(1, 2, image_id="a")
    metrics.add_counts(2, 2, image_id="a")
    intervals = metrics.compute(Bootstrap())["intervals"]
    assert intervals["oIoU"] is None
    assert intervals["Pr@0.9"] is None
    assert "-" in metrics.table()


@pytest.mark.parametrize(("protocol", "value"), [("native", 1.0), ("rmsin", 0.0)])
def test_empty_unions_follow_the_protocol(protocol, value):
    metrics = ReferringMetrics(protocol)
    for image in "ab":
        metrics.add_counts(0, 0, image_id=image)
    assert metrics.compute(Bootstrap(10))["intervals"]["oIoU"] == [value, value]


@pytest.mark.parametrize("changed", [{"resamples": 0}, {"seed": -1}, {"level": 1.0}, {"level": 0.0}])
def test_bad_numbers_are_refused(changed):
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name}: got"):
        Bootstrap(**changed)
