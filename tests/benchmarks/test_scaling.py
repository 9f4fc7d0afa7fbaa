"""Series of timings: growth beside linear growth, and what threads bring."""

import pytest

from benchmarks.scaling import THREADS, by_axis, collect, header, row


def entry(axis, size, seconds, threads=1, what="forward C=64", implementation="rrsis_kernels"):
    extra = {
        "implementation": implementation,
        "threads": threads,
        "scaling": {"axis": axis, "what": what, "size": size},
    }
    return extra, seconds


def test_growth_is_relative_to_linear_and_speed_up_to_one_thread():
    (pixels,) = collect([entry("pixels", 8000, 0.020), entry("pixels", 1000, 0.002)])
    assert list(pixels.seconds) == [1000, 8000]
    assert pixels.relative_growth() == pytest.approx(1.25)
    (threads,) = collect([entry(THREADS, 1, 0.030, threads=1), entry(THREADS, 2, 0.020, threads=2)])
    assert threads.threads is None
    assert threads.speed_up() == pytest.approx(1.5)


def test_repeated_points_give_their_median_and_other_threads_another_series():
    entries = [entry("batch", 4, seconds) for seconds in (1.0, 5.0, 2.0)] + [entry("batch", 4, 9.0, threads=2)]
    one, two = collect([*entries, ({"implementation": "eager", "threads": 1}, 7.0)])
    assert (one.threads, one.seconds) == (1, {4: 2.0})
    assert (two.threads, two.seconds) == (2, {4: 9.0})


def test_one_size_has_no_growth():
    (single,) = collect([entry("tokens", 8, 0.5)])
    assert single.relative_growth() is None
    assert row(single)[-1] == "–"


def test_rows_fit_their_header():
    entries = [entry("pixels", size, 1e-6 * size) for size in (10, 20)]
    entries += [entry(THREADS, size, 1.0 / size, threads=size) for size in (1, 2)]
    tables = by_axis(collect(entries))
    assert len(tables) == 2
    for (axis, sizes), lines in tables.items():
        assert all(len(row(one)) == len(header(axis, sizes)) for one in lines)
    (pixels,) = tables["pixels", (10, 20)]
    assert row(pixels)[-2:] == ["1 → 1", "1.00"]
