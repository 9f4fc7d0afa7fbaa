"""On which part of the model a profiled event is booked."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from benchmarks.profile_model import PARTS, to_markdown
from rrsis.component_times import (
    ACCUMULATION,
    BACKWARD_PASS,
    FORWARD_PASS,
    OUTSIDE,
    Booking,
    PartHooks,
    book,
    measure_parts,
)


def event(name, parent=None, sequence_nr=-1, milliseconds=1.0, on_device=0.0, device=DeviceType.CPU):
    return SimpleNamespace(
        name=name,
        cpu_parent=parent,
        sequence_nr=sequence_nr,
        device_type=device,
        self_cpu_time_total=1e3 * milliseconds,
        self_device_time_total=1e3 * on_device,
    )


@pytest.fixture
def hooks():
    found = PartHooks(nn.Identity(), PARTS)
    found.made += [(10, 40, "losses"), (12, 20, "BSC stages")]
    return found


def test_forward_events_belong_to_the_nearest_part(hooks):
    part = event("part: BSC stages", event("part: losses"))
    assert book(event("aten::mm", part), hooks) == Booking("BSC stages", FORWARD_PASS, None)
    kernel = event("GeneratedBackwardFor_rrsis_kernels_bsc_forward_default", event("rrsis_kernels::bsc_forward", part))
    assert book(kernel, hooks) == Booking("BSC stages", FORWARD_PASS, "bsc")
    assert book(event("Optimizer.step#AdamW.step"), hooks) == Booking(OUTSIDE, FORWARD_PASS, None)


@pytest.mark.parametrize(("number", "part"), [(15, "BSC stages"), (20, "losses"), (99, ACCUMULATION)])
def test_backward_events_belong_to_the_innermost_maker_of_their_node(hooks, number, part):
    node = event("autograd::engine::evaluate_function: MmBackward0", sequence_nr=number)
    assert book(event("aten::mm", event("MmBackward0", node)), hooks) == Booking(part, BACKWARD_PASS, None)
    kernel = event("rrsis_kernels::twin_stream_backward", node)
    assert book(kernel, hooks) == Booking(part, BACKWARD_PASS, "twin_stream")


def test_hooks_remember_the_nodes_that_a_part_made():
    model = nn.Module()
    model.pixel_decoder = nn.Linear(2, 2)
    hooks = PartHooks(model, PARTS)
    torch.ones(1, requires_grad=True) * 2
    output = model.pixel_decoder(torch.ones(1, 2))
    after = output * 2
    assert hooks.part_of_node(output.grad_fn._sequence_nr()) == "pixel decoder (FPN convolutions)"
    assert hooks.part_of_node(after.grad_fn._sequence_nr()) == ACCUMULATION


def test_the_table_adds_up(hooks):
    part = event("part: BSC stages", milliseconds=0)
    events = [part, event("aten::mm", part, milliseconds=6), event("rrsis_kernels::bsc_forward", part, milliseconds=2)]
    table = to_markdown(measure_parts(events, hooks, steps=2))
    assert "| BSC stages | 4.0 | 0.0 | 100.0 | 1.0 |" in table
    assert "| bsc | 1.0 | 0.0 | 25.0 | 1.0 |" in table


def test_what_a_gpu_did_counts_once(hooks):
    """The profiler lists kernels and ranges again, as events of the GPU that belong to no operator."""
    part = event("part: BSC stages")
    launched = [part, event("aten::mm", part, on_device=6), event("rrsis_kernels::bsc_forward", part, on_device=2)]
    again = [event(name, on_device=8, device=DeviceType.CUDA) for name in ("part: BSC stages", "sm90_gemm")]
    spent = measure_parts([*launched, *again], hooks, steps=2, time="self_device_time_total")
    assert {booking.part for booking in spent} == {"BSC stages"}
    assert sum(spent.values()) == 4.0
