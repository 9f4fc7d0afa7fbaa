"""How much memory one call needs beyond what the process holds before it, whichever library allocates it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to `CLEAR_REFS`, this sets the peak of the resident memory back to its present value (proc(5))."""

# mallopt(3): blocks from the one size on are mapped, and freed memory beyond the other goes back to the system.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SMALLEST_MAPPED = 64 << 10
LARGEST_THRESHOLD = 32 << 20
"""Where glibc's own adaptation of `M_MMAP_THRESHOLD` ends, after the first large block was freed."""


class Peak(NamedTuple):
    """What `peak_extra_mib` found.

    Attributes:
        mib: peak of the resident memory during the call less the resident memory before it; None where unknown.
        reason: why it is unknown; empty otherwise.
    """

    mib: float | None
    reason: str = ""


def _status_mib(field: str) -> float:
    """A field of `STATUS` that is given in kB."""
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise OSError(f"{STATUS} has no field {field}")


@contextlib.contextmanager
def _blocks_mapped() -> Iterator[None]:
    """Takes every larger block from the system, and gives back free memory before the block and not within it.

    A block that malloc still held from before would not show, and memory given back would hide what is taken.
    """
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    if not libc.mallopt(M_MMAP_THRESHOLD, SMALLEST_MAPPED) or not libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1):
        raise OSError("mallopt refused its thresholds")
    try:
        yield
    finally:
        # What glibc sets by itself once 32 MiB were freed; so every timed call finds the same, whatever ran before it.
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)


def _measure(call: Callable[[], Any]) -> Peak:
    gc.collect()  # what an earlier call left behind must not be freed during this one
    mapped = contextlib.ExitStack()
    try:
        mapped.enter_context(_blocks_mapped())
        CLEAR_REFS.write_text(RESET_PEAK)
        before = _status_mib("VmRSS")
    except (OSError, AttributeError) as error:
        mapped.close()
        return Peak(None, f"peak memory is unknown here: {error}")
    with mapped:
        kept = call()
        peak = _status_mib("VmHWM")
        del kept
    return Peak(max(0.0, peak - before))


def peak_extra_mib(call: Callable[[], Any]) -> Peak:
    """Runs a call once and measures its peak of extra resident memory; what it returns counts.

    torch's profiler sees torch's allocator alone, while the kernels take their scratch from the C library. Scratch that
    a library keeps for its thread would be invisible from the second call on: the call runs in a new thread, whose
    worker threads are new too.

    Args:
        call: has run before, so that nothing is compiled, loaded or cached in it for the first time.

    Returns:
        The peak, or why there is none: only Linux with glibc tells.

    Raises:
        BaseException: whatever the call raises.
    """
    result: list[Peak] = []
    errors: list[BaseException] = []

    def probe() -> None:
        try:
            result.append(_measure(call))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]
