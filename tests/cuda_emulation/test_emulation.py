"""What the emulation promises: it finds threads that do not meet, limits that are passed, values nobody has written."""

import ctypes
import math
import signal
import subprocess
import sys

import pytest
from programs import HERE, PLAIN, linked


@pytest.fixture(scope="module")
def library():
    return linked([HERE / "misuse.cu"], (*PLAIN, "-shared"))


@pytest.fixture(scope="module")
def run(library):
    """Runs a kernel of misuse.cu; what the emulation has against it, and what it has put out."""
    misuse = ctypes.CDLL(str(library)).misuse
    misuse.argtypes, misuse.restype = (ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p), ctypes.c_char_p

    def call(name, schedule=0):
        out = (ctypes.c_float * 128)()
        return misuse(name.encode(), schedule, ctypes.addressof(out)).decode(), list(out)

    return call


def line_of(text, occurrence=0):
    lines = (HERE / "misuse.cu").read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if text in line][occurrence]


@pytest.mark.parametrize("schedule", range(4))
def test_threads_that_meet_at_two_places_are_named(run, schedule):
    error, _ = run("meet_at_two_places", schedule)
    places = {line_of("__syncthreads();", 0), line_of("__syncthreads();", 1)}
    assert "__syncthreads, while others are in __syncthreads at line" in error
    assert all(str(place) in error for place in places)


@pytest.mark.parametrize("schedule", range(4))
def test_a_thread_that_never_arrives_is_a_deadlock(run, schedule):
    error, _ = run("one_stays_away", schedule)
    assert f"misuse.cu:{line_of('!= 5) __syncthreads')}" in error
    assert "waits for ever" in error
    assert "thread" in error
    assert "block" in error


def test_a_shuffle_in_a_branch_is_a_deadlock(run):
    error, _ = run("lanes_shuffle_in_a_branch")
    assert "__shfl_xor_sync" in error
    assert "waits for ever" in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half_a_mask", "only the full mask"),
        ("too_much_shared", "shared memory"),
        ("too_many_threads", "more than 1024 threads"),
        ("empty_grid", "the grid is empty"),
    ],
)
def test_what_a_device_refuses_is_refused(run, name, message):
    assert message in run(name)[0]


def test_a_launch_after_a_failed_one_is_right(run):
    run("one_stays_away")
    assert run("shuffle")[0] == ""


@pytest.mark.parametrize("schedule", range(4))
def test_shuffles_and_ballots_have_their_values(run, schedule):
    error, out = run("shuffle", schedule)
    assert error == ""
    assert out[:32] == [lane ^ 5 for lane in range(32)]
    assert out[32:64] == [7.5] * 32
    assert out[64:96] == [sum(1 << lane for lane in range(0, 32, 3)) % 65536] * 32


@pytest.mark.parametrize("schedule", range(4))
def test_shared_memory_is_nan_in_every_block(run, schedule):
    """Whatever the block before has left there."""
    error, out = run("read_shared", schedule)
    assert error == ""
    assert all(math.isnan(value) for value in out[:3])


def test_reading_beyond_shared_memory_ends_the_program(library):
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).misuse(b'read_beyond_shared', 0, (ctypes.c_float * 128)())"
    assert subprocess.run([sys.executable, "-c", code, library], check=False).returncode == -signal.SIGSEGV


def test_a_write_after_a_read_shows_only_where_a_warp_runs_ahead(run):
    due = [float(step) for step in range(2) for _ in range(32)]
    found = [run("overwrite_what_is_read", schedule)[1][:64] == due for schedule in range(9)]
    assert found[0], "warps in turn: the reader goes on first, as the last to arrive"
    assert not all(found), "no schedule has let the writer run ahead"
