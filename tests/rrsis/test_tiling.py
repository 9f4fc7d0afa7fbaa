import numpy as np
import pytest

from rrsis.tiling import Box, WindowGrid, window_weights


@pytest.mark.parametrize(("height", "width"), [(100, 100), (64, 64), (65, 200), (40, 300), (30, 20), (1, 1)])
def test_windows_cover_everything_and_overlap_enough(height, width):
    grid = WindowGrid(height, width, window=64, overlap=16)
    covered = np.zeros((height, width), dtype=int)
    for box in (grid[index] for index in range(len(grid))):
        shared = box.shared_with(Box(0, 0, height, width))
        covered[shared.within(Box(0, 0, height, width))] += 1
    assert covered.min() >= 1
    for starts, length in ((grid.rows, height), (grid.columns, width)):
        assert starts[0] == 0
        assert all(after - before <= 64 - 16 for before, after in zip(starts, starts[1:], strict=False))
        assert length <= 64 or starts[-1] + 64 == length


def test_a_raster_that_fits_is_one_window_of_its_own_size():
    assert [WindowGrid(30, 20, 64, 16)[0], len(WindowGrid(30, 20, 64, 16))] == [Box(0, 0, 30, 20), 1]
    assert WindowGrid(30, 100, 64, 16)[0] == Box(0, 0, 64, 64)


def test_windows_that_touch_a_box_are_those_that_share_a_pixel():
    grid = WindowGrid(300, 200, 64, 16)
    box = Box(90, 70, 33, 50)
    expected = [index for index in range(len(grid)) if grid[index].shared_with(box)]
    assert grid.touching(box) == expected
    assert 0 < len(expected) < len(grid)
    with pytest.raises(IndexError):
        grid[len(grid)]


def test_weights_fall_to_the_edges_and_are_never_zero():
    weights = window_weights(32, 48, 8)
    assert weights.shape == (32, 48)
    assert weights[16, 24] == 1
    assert (np.diff(weights[16, :8]) > 0).all()
    assert weights.min() > 0
    assert np.allclose(weights, weights[::-1, ::-1])
    # Where two windows overlap by just the ramp, their weights add up to one: nothing to see at the seam.
    assert np.allclose(weights[16, :8] + weights[16, -8:], 1)
    assert (window_weights(5, 5, 0) == 1).all()
