"""Inputs for the operators, running them, and the measure of a kernel's error."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor

import rrsis_kernels
from rrsis_kernels import backends, dispatch, library, triton, use_backend

REFERENCE = "reference"
CAPABILITIES = ("baseline", "avx2", "avx512", "avx512bf16")
AUTOMATIC = -1
M_PERTURB = -6  # malloc.h
GPU_BACKENDS = ("triton", "cuda")
"""Backends for GPUs, which compute in fp32; on the CPU they are interpreted or emulated."""
KERNELS = (*(f"cpu-{capability}" for capability in CAPABILITIES), *GPU_BACKENDS)
PRODUCTS = ("bidirectional_spatial_correlation", "twin_stream_attention")
"""Operators that multiply matrices."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
OPS = backends.OPS


def set_capability(capability: int) -> bool:
    """Makes the CPU kernels use an instruction set, -1 the one of their own choice; False where there is none such."""
    return torch.ops.rrsis_kernels.set_cpu_capability(capability) == capability or capability == AUTOMATIC


def on_the_host(name: str) -> bool:
    """Whether a backend for GPUs runs on CPU tensors in this process, slowly."""
    if name == "triton":
        return triton.INTERPRETED
    return name == "cuda" and library.EMULATION_VARIABLE in os.environ


ON_THE_HOST = any(map(on_the_host, GPU_BACKENDS))


def why_not(name: str) -> str | None:
    """Why an implementation such as "cpu-avx2" cannot run here; None if it can."""
    if name == REFERENCE:
        return None
    if name == "triton":
        if triton.INTERPRETED or (triton.INSTALLED and torch.cuda.is_available()):
            return None
        return "Triton needs a GPU here; tests/triton runs these tests in Triton's interpreter"
    if name == "cuda":
        status = library.extension_status()["emulation" if on_the_host(name) else "_C_cuda"]
        if not status.loaded:
            return status.reason
        if on_the_host(name) or torch.cuda.is_available():
            return None
        return "the CUDA kernels need a GPU here; tests/cuda_emulation runs these tests on the CPU"
    status = library.extension_status()["_C"]
    if not status.loaded:
        return status.reason
    _, _, capability = name.partition("-")
    available = not capability or set_capability(CAPABILITIES.index(capability))
    set_capability(AUTOMATIC)
    return None if available else f"this processor (or this build) has no {capability}"


def poison_allocations(on: bool) -> bool:
    """Makes malloc fill what it gives out with 0xff, which is NaN in every floating dtype; False where it cannot.

    `torch.utils.deterministic.fill_uninitialized_memory` does not reach the stable ABI's `aoti_torch_empty_strided`,
    nor any working memory. glibc fills with the complement of the lowest byte, and does so where the whole number is
    not 0.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_PERTURB, 0x100 if on else 0) == 1


def use_environment_schedule() -> None:
    """Orders emulated CUDA threads by the seed in RRSIS_CUDA_EMULATION_SCHEDULE, set by tests/cuda_emulation."""
    emulation = library.extension_status().get("emulation")
    if emulation is not None and emulation.loaded:
        seed = int(os.environ.get("RRSIS_CUDA_EMULATION_SCHEDULE", "0"))
        ctypes.CDLL(emulation.path).rrsis_cuda_emulation_schedule(ctypes.c_uint64(seed))


class Place:
    """Where the tensors of a test are made and run; plain attributes, which compiled functions may read."""

    device_type = "cpu"


@contextlib.contextmanager
def on_device_of(name: str) -> Iterator[None]:
    """Runs a test where an implementation runs: on the GPU for its backends, unless they run on the CPU instead."""
    before = Place.device_type
    Place.device_type = "cuda" if name in GPU_BACKENDS and not on_the_host(name) else "cpu"
    try:
        with torch.device(Place.device_type) if Place.device_type != before else contextlib.nullcontext():
            # PyTorch notes down at its first call for which functions a default device is meant: before
            # `poisoned_empty` has replaced some of them.
            torch.empty(0)
            yield
    finally:
        Place.device_type = before


@contextlib.contextmanager
def poisoned_empty() -> Iterator[None]:
    """Fills with NaN (integers: with their largest value) what Python code gets as uninitialised, on any device."""

    def filling(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def poisoned(*args: Any, **kwargs: Any) -> Tensor:
            made = make(*args, **kwargs)
            if type(made) is Tensor and made.device.type != "meta" and made.dtype != torch.bool:
                made.fill_(torch.nan if made.is_floating_point() else torch.iinfo(made.dtype).max)
            return made

        return poisoned

    with contextlib.ExitStack() as stack:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch, "empty_strided"), (Tensor, "new_empty")):
            stack.enter_context(mock.patch.object(owner, name, filling(getattr(owner, name))))
        yield


def finest_dtype() -> torch.dtype:
    """The most precise dtype of the forced backend."""
    return torch.float32 if backends.forced_backend() in GPU_BACKENDS else torch.float64


def many(count: int) -> int:
    """A large number of pixels or rows; a quarter of it where kernels for GPUs run on the CPU, which is slow."""
    return count // 4 if ON_THE_HOST else count


def skip_unless_supported(op: str, dtype: torch.dtype, shapes: dict[str, int] | None = None) -> None:
    """Skips the test where the forced GPU backend does not take such a call, or Triton's interpreter is wrong."""
    forced = backends.forced_backend()
    if forced not in GPU_BACKENDS or why_not(forced):
        return
    support = backends.can_run(op, forced, Place.device_type, dtype, shapes)
    if not support.ok:
        pytest.skip(support.reason)
    if forced == "triton" and triton.INTERPRETED and dtype == torch.bfloat16 and op in PRODUCTS:
        pytest.skip("Triton's interpreter multiplies the bit patterns of bfloat16")


def has_backward(op: str) -> bool:
    """Whether the forced backend has a backward of its own, which the accuracy of gradients can be asked of.

    The CUDA C++ kernels of the products have not: they serve inference, and training does not choose them.
    """
    return backends.forced_backend() != "cuda" or op not in PRODUCTS


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of an operator.

    Attributes:
        op: name of the public function.
        tensors: its tensor arguments by name.
        differentiable: the arguments whose gradients are compared.
        options: its other arguments.
    """

    op: str
    tensors: dict[str, Tensor | None]
    differentiable: tuple[str, ...]
    options: dict = dataclasses.field(default_factory=dict)

    def to(self, dtype: torch.dtype) -> Case:
        """The same values in another dtype, masks left alone; layouts are kept."""

        def cast(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or not tensor.is_floating_point() else tensor.to(dtype)

        return dataclasses.replace(self, tensors={name: cast(tensor) for name, tensor in self.tensors.items()})

    def here(self) -> Case:
        """The same, with tensors that were made on the CPU on the device of the test."""
        if Place.device_type == "cpu":
            return self

        def moved(tensor: Any) -> Any:
            made_on_cpu = isinstance(tensor, Tensor) and tensor.device.type == "cpu"
            return tensor.to(Place.device_type) if made_on_cpu else tensor

        return dataclasses.replace(self, tensors={name: moved(tensor) for name, tensor in self.tensors.items()})

    def redrawn(self, seed: int) -> Case:
        """Other normal values of the same size in the differentiable arguments; zeros stay zeros."""
        draw = Draw(1000 + seed)

        def other(tensor: Tensor) -> Tensor:
            values = draw.normal(*tensor.shape).to(tensor.dtype)
            return values * tensor.double().square().mean().sqrt().to(tensor.dtype) * (tensor != 0)

        changed = {name: self.tensors[name] for name in self.differentiable if self.tensors[name] is not None}
        changed = {name: other(tensor) for name, tensor in changed.items()}
        return dataclasses.replace(self, tensors=self.tensors | changed)

    def sizes(self) -> dict[str, int]:
        """Sizes by letter, of the arguments that have the rank they should."""
        sizes: dict[str, int] = {}
        for name, layout in dispatch.LAYOUTS[self.op].items():
            letters, tensor = layout.split(), self.tensors[name]
            if isinstance(tensor, Tensor) and tensor.dim() == len(letters):
                sizes |= zip(letters, tensor.shape, strict=True)
        return sizes

    def __call__(self) -> dict[str, Tensor]:
        """Calls the public function; outputs by name, without those that are None."""
        first = next(iter(self.tensors.values()))
        if isinstance(first, Tensor):
            skip_unless_supported(self.op, first.dtype, self.sizes())
        result = getattr(rrsis_kernels, self.op)(**self.here().tensors, **self.options)
        outputs = {"loss": result} if isinstance(result, Tensor) else result._asdict()
        return {name: output for name, output in outputs.items() if output is not None}

    def run(self) -> dict[str, Tensor]:
        """Outputs, and gradients (as grad_<argument>) for fixed cotangents of all outputs."""
        leaves = {
            name: self.here().tensors[name].detach().requires_grad_()
            for name in self.differentiable
            if self.tensors[name] is not None
        }
        outputs = dataclasses.replace(self, tensors=self.tensors | leaves)()
        smooth = {name: output for name, output in outputs.items() if output.requires_grad}
        grads = torch.autograd.grad(
            list(smooth.values()), list(leaves.values()), cotangents(smooth), allow_unused=True, materialize_grads=True
        )
        results = {name: output.detach() for name, output in outputs.items()}
        return results | {f"grad_{name}": grad for name, grad in zip(leaves, grads, strict=True)}


def cotangents(outputs: dict[str, Tensor]) -> list[Tensor]:
    """The same numbers whatever the dtype (as far as bf16 has them): multiples of 1/16 in [-2, 2]."""
    generator = torch.Generator("cpu").manual_seed(99)
    return [
        (torch.randint(-32, 33, output.shape, generator=generator, device="cpu") / 16).to(output)
        for output in outputs.values()
    ]


DRAWS, MOST_DRAWS = 8, 64
"""Over how many draws of the values an error is taken where one draw does not settle it; tiny tensors need more."""
ENOUGH = 256
"""Errors whose largest is known: that of two equal kernels' is twice as large by chance once in 1e5 times.

For normal errors; of 8 it is so 5 times in 100, of 64 once in 1000.
"""


def assert_accurate(case: Case) -> None:
    """Asserts that the error against fp64 is at most twice that of PyTorch in the same dtype plus one rounding.

    The error is the largest over a tensor. On a small tensor PyTorch is sometimes exact by chance; where the case's own
    values are over the limit, both errors are the largest over several draws of the values, as many as make `ENOUGH`
    errors. A tensor in fp64 has no finer oracle than itself: it may differ by 1e-12 of its magnitude.
    """
    case = case.here()
    over = _errors_over_the_limit([_measure(case)])
    draws: list[dict[str, Measured]] = []
    while over and len(draws) < MOST_DRAWS:
        draws += [_measure(case.redrawn(seed)) for seed in range(len(draws), len(draws) + DRAWS)]
        over = _errors_over_the_limit(draws)
        if any(draws[0][name].elements * len(draws) >= ENOUGH for name in over):
            break
    assert not over, "\n".join(f"{name}: {message}" for name, message in over.items())


class Measured(NamedTuple):
    """Errors of one output or gradient; infinite where shapes, dtypes, infinities or NaN are wrong."""

    kernel: float
    reference: float
    magnitude: float
    dtype: torch.dtype
    elements: int


def _measure(case: Case) -> dict[str, Measured]:
    got, differentiable = case.run(), has_backward(case.op)
    with use_backend(REFERENCE):
        same = case.run()
        oracle = case.to(torch.float64).run()
    assert got.keys() == oracle.keys()
    measures = {}
    for name, due in oracle.items():
        if name.startswith("grad_") and not differentiable:
            continue
        value = got[name]
        assert value.shape == due.shape, f"{name}: shape {tuple(value.shape)}, due {tuple(due.shape)}"
        assert value.dtype == same[name].dtype, f"{name}: {value.dtype}, due {same[name].dtype}"
        infinite = due.isinf()
        assert torch.equal(value.isinf(), infinite), f"{name}: infinities in other places"
        assert not value.isnan().any(), f"{name}: NaN"
        measures[name] = Measured(
            _largest((value.double() - due)[~infinite]),
            _largest((same[name].double() - due)[~infinite]),
            _largest(due[~infinite]),
            value.dtype,
            int(due.count_nonzero()),
        )
    return measures


def _largest(values: Tensor) -> float:
    return values.abs().max().item() if values.numel() else 0.0


def _errors_over_the_limit(draws: list[dict[str, Measured]]) -> dict[str, str]:
    """A message for each output or gradient over the limit."""
    messages = {}
    for name, first in draws[0].items():
        kernel, reference, magnitude = (
            max(getattr(draw[name], field) for draw in draws) for field in Measured._fields[:3]
        )
        allowed = 2 * reference + torch.finfo(first.dtype).eps * magnitude
        if first.dtype == torch.float64:
            allowed = 1e-12 * max(1.0, magnitude)
        if kernel > allowed:
            messages[name] = f"error {kernel:.3g}, PyTorch's {reference:.3g}, magnitude {magnitude:.3g}"
    return messages


class Draw:
    """Random tensors from one seed.

    Args:
        seed: of the generator.
        dtype: of floating tensors.
    """

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self.dtype = dtype

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        values = torch.randn(shape, generator=self.generator, device="cpu") * scale
        return values.to(Place.device_type, self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        """In fp32, in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device="cpu").to(Place.device_type)

    def mask(self, *shape: int, share: float = 0.7) -> Tensor:
        return self.uniform(*shape) < share


def correlation_case(
    shape: tuple[int, int, int, int, int, int],
    dtype: torch.dtype = torch.float32,
    *,
    direction: str = "both",
    bias: bool = True,
    masks: bool = True,
    sharpness: float = 1.0,
    seed: int = 0,
) -> Case:
    """A `bidirectional_spatial_correlation` of shape (B, N, C, D, H, L); with masks, sample 0 has nothing real."""
    (b, n, c, d, h, l), draw = shape, Draw(seed, dtype)
    tensors = {
        "pixels": draw.normal(b, n, c),
        "keys": draw.normal(b, h, l, c, scale=sharpness / max(c, 1) ** 0.5),
        "values": None if direction == "pool" else draw.normal(b, h, l, d),
        "key_bias": draw.normal(b, h, l) if bias else None,
        "token_mask": draw.mask(b, l) if masks else None,
        "pixel_mask": draw.mask(b, n) if masks else None,
    }
    if masks and b > 1:
        tensors["token_mask"][0] = False
        tensors["pixel_mask"][0] = False
    differentiable = ("pixels", "keys", "values", "key_bias")
    return Case("bidirectional_spatial_correlation", tensors, differentiable, {"direction": direction})


def twin_stream_case(
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype = torch.float32,
    *,
    gate: torch.dtype | None = torch.float32,
    masks: bool = True,
    sharpness: float = 1.0,
    seed: int = 0,
) -> Case:
    """A `twin_stream_attention` of shape (B, N, C, H, K); with masks, sample 0 has no real pixel."""
    (b, n, c, h, k), draw = shape, Draw(seed, dtype)
    scale = sharpness / max(c, 1) ** 0.5
    tensors = {
        "pixels": draw.normal(b, n, c),
        "target_queries": draw.normal(b, h, k, c, scale=scale),
        "background_queries": draw.normal(b, h, k, c, scale=scale),
        "gate": None if gate is None else draw.normal(b, n, scale=3.0).to(gate),
        "pixel_mask": draw.mask(b, n) if masks else None,
    }
    if masks and b > 1:
        tensors["pixel_mask"][0] = False
    return Case("twin_stream_attention", tensors, ("pixels", "target_queries", "background_queries", "gate"))


def mask_statistics_case(
    logits: tuple[int, int, int],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    *,
    mask: torch.dtype = torch.bool,
    valid: bool = True,
    joint_scale: float = 0.5,
    seed: int = 0,
) -> Case:
    """A `twin_mask_statistics` of logits (B, h, w) and masks of `size`; with `valid`, sample 0 has no valid pixel."""
    (b, h, w), draw = logits, Draw(seed, dtype)
    truth = draw.mask(b, *size, share=0.4)
    if mask.is_floating_point:
        truth = draw.uniform(b, *size)
        # Not near ½, where rounding to another dtype would change a count.
        truth = torch.where((truth - 0.5).abs() < 0.05, 0.25, truth)
    tensors = {
        "target_logits": draw.normal(b, h, w, scale=4.0),
        "background_logits": draw.normal(b, h, w, scale=4.0),
        "mask": truth.to(mask),
        "valid": draw.mask(b, *size) if valid else None,
    }
    if valid and b > 1:
        tensors["valid"][0] = False
    options = {"joint_scale": joint_scale}
    return Case("twin_mask_statistics", tensors, ("target_logits", "background_logits"), options)


def cosine_case(
    shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, *, share: float = 0.4, seed: int = 0
) -> Case:
    """A `masked_cosine_loss` of shape (B, N, C); sample 0 has no masked row, one counted row is all zeros."""
    (b, n, c), draw = shape, Draw(seed, dtype)
    tensors = {"prediction": draw.normal(b, n, c), "target": draw.normal(b, n, c), "mask": draw.mask(b, n, share=share)}
    if b > 1:
        tensors["mask"][0] = False
    if b and n > 1 and dtype != torch.float16:  # whose gradient 1/ε is more than fp16 can hold
        tensors["mask"][-1, 0] = True
        tensors["prediction"][-1, 0] = 0
    return Case("masked_cosine_loss", tensors, ("prediction", "target"))


def small_case(op: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Case:
    """A small call of any operator, with everything optional in it."""
    if op == "bidirectional_spatial_correlation":
        return correlation_case((2, 19, 6, 5, 2, 3), dtype, seed=seed)
    if op == "twin_stream_attention":
        return twin_stream_case((2, 19, 6, 2, 3), dtype, gate=dtype, seed=seed)
    if op == "twin_mask_statistics":
        return mask_statistics_case((2, 4, 5), (11, 9), dtype, mask=torch.bool, seed=seed)
    return cosine_case((2, 19, 6), dtype, seed=seed)


def leaf_and_loss(op: str) -> tuple[Tensor, Tensor]:
    """A differentiable input of a small call, and a sum of its outputs."""
    case = small_case(op)
    name = case.differentiable[0]
    leaf = case.tensors[name].requires_grad_()
    outputs = Case(op, case.tensors | {name: leaf}, (), case.options)()
    smooth = [output for output in outputs.values() if output.requires_grad]
    return leaf, sum(output.masked_fill(output == -torch.inf, 0).sum() for output in smooth)


def function_of_first(op: str) -> tuple[Callable[[Tensor], dict[str, Tensor]], Tensor]:
    """A small call as a function of its first argument, and that argument: something to compile."""
    case = small_case(op)
    first = next(iter(case.tensors))

    def call(tensor: Tensor) -> dict[str, Tensor]:
        return Case(op, case.tensors | {first: tensor}, (), case.options)()

    return call, case.tensors[first]
