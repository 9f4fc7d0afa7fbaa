"""`python -m rrsis.train --profile`: what time and memory each part of the model takes in training."""

from __future__ import annotations

import contextlib
import resource
import time
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback

from rrsis.component_times import (
    ACCUMULATION,
    BACKWARD_PASS,
    FORWARD_PASS,
    OUTSIDE,
    RANGE,
    Booking,
    PartHooks,
    measure_parts,
    part_of_module,
)

COMPONENTS = {
    r"encoder\.image\.stem": "backbone, stem",
    r"encoder\.image\.stages\.(\d+)": "backbone, stage {}",
    r"encoder\.text": "text encoder",
    r"encoder\.fusions\.(\d+)": "BSC fusion {}",
    r"pixel_decoder": "pixel decoder",
    r"decoder\.layers\.(\d+)": "decoder, layer {}",
    r"decoder\.(?:head|detail)": "decoder, predictions",
    r"decoder": "decoder, the rest",
    r"reconstruction": "D-MOLS",
    r"": "losses",
}
"""Full names of modules → the component in the table."""

OPTIMIZER = "optimizer"

RENAMED = {OUTSIDE: "data, clipping, zeroing", ACCUMULATION: "adding gradients up"}
"""The optimizer has a row of its own here."""

MEMORY_STEPS, TIMED_STEPS, PROFILED_STEPS = 1, 3, 3
PROFILE_STEPS = MEMORY_STEPS + TIMED_STEPS + PROFILED_STEPS
"""How many steps a profile takes: memory first, which warms up too; then undisturbed ones; then the profiler's."""

MIB = 2**20


class ComponentProfile(TrainerCallback):
    """Watches a Trainer for `PROFILE_STEPS` steps; `table` then says what it saw.

    Args:
        model: the model in training, without wrappers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooks = PartHooks(model, COMPONENTS)
        self._memory: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._kept: dict[int, int] = {}
        self._step = 0
        self._times: list[float] = []
        self._watching = contextlib.ExitStack()
        self._profiler: profile | None = None

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Starts what is measured in this step."""
        if self._step == 0:
            self._weights = {weight.untyped_storage().data_ptr() for weight in self._model.parameters()}
            hooks = torch.autograd.graph.saved_tensors_hooks(self._note_kept, lambda tensor: tensor)
            self._watching.enter_context(hooks)
        if self._step == MEMORY_STEPS + TIMED_STEPS:
            self._hooks.made.clear()
            activities = [ProfilerActivity.CPU]
            activities += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profiler = self._watching.enter_context(profile(activities=activities))
        self._start = time.perf_counter()

    def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
        """What is kept for the backward pass is that of one batch, also where several are accumulated."""
        if self._step == 0:
            self._watching.close()

    def on_pre_optimizer_step(self, *args: Any, optimizer: torch.optim.Optimizer, **kwargs: Any) -> None:
        """Gradients are whole here."""
        if self._step == 0:
            self._watching.close()
            self._note_parameters("gradients", lambda weight: [] if weight.grad is None else [weight.grad])
        self._optimizer_range = record_function(RANGE + OPTIMIZER)
        self._optimizer_range.__enter__()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimizer is done."""
        self._optimizer_range.__exit__(None, None, None)

    def on_step_end(self, *args: Any, optimizer: torch.optim.Optimizer, **kwargs: Any) -> None:
        """Closes what was opened for this step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if MEMORY_STEPS <= self._step < MEMORY_STEPS + TIMED_STEPS:
            self._times.append(time.perf_counter() - self._start)
        if self._step == 0:
            self._note_parameters("parameters", lambda weight: [weight])
            state = getattr(optimizer, "optimizer", optimizer).state
            self._note_parameters("optimizer state", lambda weight: state.get(weight, {}).values())
        self._step += 1
        if self._step == PROFILE_STEPS:
            self._watching.close()
            self._hooks.remove()

    def _note_kept(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # An address that was freed and given out again counts once: what is kept is held by the graph and never freed.
        if storage.data_ptr() not in self._weights and storage.data_ptr() not in self._kept:
            self._kept[storage.data_ptr()] = storage.nbytes()
            self._memory[self._hooks.current or COMPONENTS[""]]["kept for backward"] += storage.nbytes()
        return tensor

    def _note_parameters(self, what: str, tensors: Any) -> None:
        for name, weight in self._model.named_parameters():
            held = [tensor for tensor in tensors(weight) if isinstance(tensor, Tensor)]
            self._memory[_component_of(name)][what] += sum(tensor.nbytes for tensor in held)

    def table(self) -> str:
        """Time and memory of each component, as Markdown."""
        device = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        spent = measure_parts(self._profiler.events(), self._hooks, PROFILED_STEPS, device)
        spent = {booking._replace(part=RENAMED.get(booking.part, booking.part)): ms for booking, ms in spent.items()}
        columns = ("parameters", "gradients", "optimizer state", "kept for backward")
        lines = [
            f"| component | forward ms | backward ms | share % | {' | '.join(f'{name} MiB' for name in columns)} |",
            "|---|" + "--:|" * (3 + len(columns)),
        ]
        names = [*dict.fromkeys([*_in_order(self._model), *(booking.part for booking in spent), *self._memory])]
        rows = {name: _row(spent, self._memory.get(name, {}), name, columns) for name in names}
        total = sum(row[0] + row[1] for row in rows.values())
        rows["**sum**"] = [sum(row[index] for row in rows.values()) for index in range(2 + len(columns))]
        for name, (forward, backward, *memory) in rows.items():
            share = 100 * (forward + backward) / total
            cells = [f"{forward:.1f}", f"{backward:.1f}", f"{share:.1f}", *(f"{value:.1f}" for value in memory)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join([*lines, "", self._summary(total)])

    def _summary(self, total: float) -> str:
        middle = 1e3 * sorted(self._times)[len(self._times) // 2]
        if torch.cuda.is_available():
            peak = f"{torch.cuda.max_memory_allocated() / MIB:.0f} MiB at most on the GPU"
            watched = f"the GPU works {total:.0f} ms of a step"
        else:
            # Linux counts in KiB.
            peak = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most in this process"
            watched = f"{total:.0f} ms under the profiler"
        return (
            f"{middle:.0f} ms a step, undisturbed (median of {TIMED_STEPS}); {watched}, of which the table is "
            f"(mean of {PROFILED_STEPS}). {peak}. Kept for backward: of one batch."
        )


def _component_of(parameter: str) -> str:
    """The component of a parameter: that of the innermost module with a label around it."""
    module = parameter
    while module:
        module = module.rpartition(".")[0]
        if label := part_of_module(module, COMPONENTS):
            return label
    return COMPONENTS[""]


def _in_order(model: nn.Module) -> list[str]:
    labels = (part_of_module(name, COMPONENTS) for name, _ in model.named_modules())
    return [label for label in dict.fromkeys(labels) if label not in (None, COMPONENTS[""])]


def _row(spent: dict[Booking, float], memory: dict[str, int], name: str, columns: tuple[str, ...]) -> list[float]:
    def of(pass_name: str) -> float:
        return sum(ms for booking, ms in spent.items() if (booking.part, booking.pass_name) == (name, pass_name))

    return [of(FORWARD_PASS), of(BACKWARD_PASS), *(memory.get(column, 0) / MIB for column in columns)]
