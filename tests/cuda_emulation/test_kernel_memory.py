"""Out-of-bounds accesses and races: none in the kernels, and found where a test plants them.

Each operator's launchers are called by a program without torch (driver.cpp) on small and odd problems.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from programs import KERNELS, PLAIN, RACE, SANITIZED, drive, driver, linked, with_error

WRONG_RESULT = 3


class Plant(NamedTuple):
    """An error for a copy of an operator's kernel file.

    Attributes:
        op: the operator.
        file: the kernel file.
        right: the text that is replaced.
        wrong: what stands there instead.
        occurrence: which of several.
    """

    op: str
    file: str
    right: str
    wrong: str
    occurrence: int = 0

    def program(self, options: tuple[str, ...] = PLAIN) -> Path:
        """The operator's driver with this error in it."""
        folder = with_error(self.file, self.right, self.wrong, self.occurrence)
        return driver(self.op, [folder / name for name in OPERATORS[self.op]], options)


OPERATORS = {
    "twin_mask_statistics": ("twin_mask_statistics.cu",),
    "token_pixel": (
        *("bidirectional_spatial_correlation.cu", "twin_stream_attention.cu"),
        *("token_pixel_pool.cu", "token_pixel.cpp"),
    ),
}
"""By operator or family of them (which has a drive_<op>.cpp), the files of its kernels and launchers."""

STATISTICS = ("twin_mask_statistics", "twin_mask_statistics.cu")
OUT_OF_BOUNDS = {
    "a pixel behind the last": Plant(*STATISTICS, "s.x + i < p.x.out)", "s.x + i <= p.x.out)"),
    "a logit behind the last": Plant(*STATISTICS, "s.low[i] + 1, p.x.in - 1", "s.low[i] + 1, p.x.in"),
    "a logit before the first": Plant(*STATISTICS, "from[s.low[i]])", "from[s.low[i] - 1])"),
    "a warp too many": Plant(*STATISTICS, "entry >= count", "entry > count"),
    "a thread too many": Plant(*STATISTICS, "number >= p.in.B * map", "number > p.in.B * map"),
    "a channel behind the last": Plant("token_pixel", "token_pixel_pool.cu", "column < a.C", "column <= a.C"),
}
MISSING_BARRIERS = {
    "before the warp reads": Plant(*STATISTICS, "__syncwarp();", ""),
    "before the warp writes again": Plant(*STATISTICS, "__syncwarp();", "", 1),
    "before a stage is used": Plant("token_pixel", "panels.cuh", "__syncthreads();", ""),
}


@pytest.fixture(scope="module")
def sanitizer(tmp_path_factory):
    """Skips where ThreadSanitizer is not installed or cannot run (it needs its own layout of the address space)."""
    source = tmp_path_factory.mktemp("sanitizer") / "nothing.cpp"
    source.write_text("int main() {}")
    try:
        result = drive(linked([source], SANITIZED), 1)
    except subprocess.CalledProcessError:
        pytest.skip("this compiler has no ThreadSanitizer")
    if result.returncode != 0:
        pytest.skip(f"ThreadSanitizer does not run here: {result.stderr[:200]}")


def _kernels(op):
    return [KERNELS / name for name in OPERATORS[op]]


@pytest.mark.parametrize("op", OPERATORS)
def test_kernels_keep_to_their_buffers_under_every_schedule(op):
    result = drive(driver(op, _kernels(op)), 6)
    assert result.returncode == 0, result.stdout


@pytest.mark.usefixtures("sanitizer")
@pytest.mark.parametrize("op", OPERATORS)
def test_kernels_have_no_races(op):
    result = drive(driver(op, _kernels(op), SANITIZED), 2)
    assert result.returncode == 0, result.stdout + result.stderr[:4000]


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages end a program by SIGSEGV on Linux")
@pytest.mark.parametrize("plant", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS)
def test_an_access_out_of_bounds_ends_the_program(plant):
    result = drive(plant.program(), 1)
    assert result.returncode == -signal.SIGSEGV, result.stdout


@pytest.mark.parametrize("plant", MISSING_BARRIERS.values(), ids=MISSING_BARRIERS)
def test_a_missing_barrier_shows_in_the_results_of_some_schedule(plant):
    result = drive(plant.program(), 8)
    assert result.returncode == WRONG_RESULT, result.stdout


@pytest.mark.usefixtures("sanitizer")
@pytest.mark.parametrize("plant", MISSING_BARRIERS.values(), ids=MISSING_BARRIERS)
def test_a_missing_barrier_is_a_race_to_the_sanitizer(plant):
    result = drive(plant.program(SANITIZED), 1)
    assert result.returncode == RACE, result.stdout
    assert plant.file in result.stderr
