"""Books what PyTorch's profiler saw on the parts of a model, forward and backward."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import record_function
from torch.utils.hooks import RemovableHandle

OUTSIDE, ACCUMULATION = "optimizer, clipping, zeroing", "gradient accumulation"
RANGE, BACKWARD = "part: ", "autograd::engine::evaluate_function: "
OURS_PATTERN = re.compile(r"rrsis_kernels(?:::|_)(\w+?)_(?:forward|backward)")

FORWARD_PASS, BACKWARD_PASS = "forward", "backward"


class Booking(NamedTuple):
    """What one profiled event's own time is booked on.

    Attributes:
        part: of the model.
        pass_name: `FORWARD_PASS` or `BACKWARD_PASS`.
        op: which of our operators it is; None for PyTorch's own.
    """

    part: str
    pass_name: str
    op: str | None


def part_of_module(name: str, parts: Mapping[str, str]) -> str | None:
    """The label of the first pattern that a module's full name matches; `{}` in it stands for the pattern's group.

    Args:
        name: the module's full name.
        parts: patterns of names → labels.
    """
    for pattern, label in parts.items():
        if match := re.fullmatch(pattern, name):
            return label.format(*match.groups())
    return None


class PartHooks:
    """Marks the parts of a model for the profiler, and remembers which autograd nodes each one made.

    Args:
        model: gets hooks on the modules that `parts` names.
        parts: patterns of full names of modules → the part that their time is booked on; the innermost module counts.
    """

    def __init__(self, model: nn.Module, parts: Mapping[str, str]) -> None:
        self._open: list[tuple[str, int, record_function]] = []
        self.made: list[tuple[int, int, str]] = []
        self._handles: list[RemovableHandle] = []
        for name, module in model.named_modules():
            label = part_of_module(name, parts)
            if label is not None:
                enter = module.register_forward_pre_hook(lambda *_, label=label: self._enter(label))
                self._handles += [enter, module.register_forward_hook(lambda *_: self._leave())]

    @property
    def current(self) -> str | None:
        """The part that runs now, forward."""
        return self._open[-1][0] if self._open else None

    def remove(self) -> None:
        """Takes the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, label: str) -> None:
        mark = record_function(RANGE + label)
        mark.__enter__()
        self._open.append((label, torch.autograd._get_sequence_nr(), mark))

    def _leave(self) -> None:
        label, first, mark = self._open.pop()
        self.made.append((first, torch.autograd._get_sequence_nr(), label))
        mark.__exit__(None, None, None)

    def part_of_node(self, sequence_nr: int) -> str:
        """The part whose forward made an autograd node."""
        makers = [(end - first, label) for first, end, label in self.made if first <= sequence_nr < end]
        return min(makers)[1] if makers else ACCUMULATION


def book(event: Any, hooks: PartHooks) -> Booking:
    """Finds out what an event of the profiler belongs to, from the events around it."""
    op, around = None, event
    while around is not None:
        found = OURS_PATTERN.search(around.name)
        if found and not around.name.startswith(BACKWARD):
            op = op or found[1]
        if around.name.startswith(BACKWARD):
            return Booking(hooks.part_of_node(around.sequence_nr), BACKWARD_PASS, op)
        if around.name.startswith(RANGE):
            return Booking(around.name.removeprefix(RANGE), FORWARD_PASS, op)
        around = around.cpu_parent
    return Booking(OUTSIDE, FORWARD_PASS, op)


def measure_parts(
    events: Iterable[Any], hooks: PartHooks, steps: int, time: str = "self_cpu_time_total"
) -> dict[Booking, float]:
    """Milliseconds a step of each booking, of the events' own time.

    What a GPU did is read from the operators that started it. The profiler lists it a second time, as events of the
    GPU: kernels, and marked ranges as long as all that ran in them; those do not count.

    Args:
        events: of the profiler.
        hooks: that marked the parts.
        steps: how many were profiled.
        time: which time of an event: "self_cpu_time_total", or "self_device_time_total" for what it started on a GPU.
    """
    spent: dict[Booking, float] = defaultdict(float)
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        spent[book(event, hooks)] += getattr(event, time) / 1e3 / steps
    return dict(spent)
