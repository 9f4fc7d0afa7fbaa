"""The probe of peak memory on allocations of known size."""

import threading

import pytest
import torch

from benchmarks import memory
from benchmarks.memory import peak_extra_mib

MIB = 2**20 // 4
"""fp32 numbers in a MiB."""

needs_proc = pytest.mark.skipif(
    peak_extra_mib(lambda: None).mib is None, reason="peak memory is measured on Linux with glibc alone"
)


@needs_proc
def test_an_allocation_counts_with_its_size():
    assert peak_extra_mib(lambda: torch.ones(64 * MIB)).mib == pytest.approx(64, abs=2)


@needs_proc
def test_what_is_freed_within_the_call_counts_at_its_peak():
    def call():
        (torch.ones(16 * MIB) + 1).sum()
        return torch.ones(8 * MIB)

    assert peak_extra_mib(call).mib == pytest.approx(32, abs=2)


@needs_proc
def test_memory_that_malloc_holds_from_before_does_not_hide_the_call():
    """glibc keeps freed blocks of such a size; a call that takes them again would seem to need nothing."""
    for _ in range(3):
        torch.ones(16 * MIB)
    blocks = [torch.ones(MIB // 2) for _ in range(64)]
    del blocks
    call = lambda: [torch.ones(MIB // 2) for _ in range(20)]  # noqa: E731
    call()
    for _ in range(3):
        assert peak_extra_mib(call).mib == pytest.approx(10, abs=1)


@needs_proc
def test_scratch_that_a_thread_keeps_counts_every_time():
    kept = threading.local()

    def call():
        if not hasattr(kept, "scratch"):
            kept.scratch = torch.ones(24 * MIB)

    call()
    assert peak_extra_mib(call).mib == pytest.approx(24, abs=2)
    assert peak_extra_mib(call).mib == pytest.approx(24, abs=2)


@pytest.mark.parametrize("name", ["STATUS", "CLEAR_REFS"])
def test_without_proc_there_is_a_reason_instead(monkeypatch, tmp_path, name):
    monkeypatch.setattr(memory, name, tmp_path / "missing" / "file")
    peak = peak_extra_mib(lambda: pytest.fail("must not run"))
    assert peak.mib is None
    assert "missing" in peak.reason


def test_an_error_of_the_call_comes_through_and_is_not_taken_for_a_missing_proc():
    def call():
        raise OSError("of the call")

    with pytest.raises(OSError, match="of the call"):
        peak_extra_mib(call)
