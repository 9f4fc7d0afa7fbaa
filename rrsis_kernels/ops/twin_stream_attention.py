"""Twin-stream attention: target and background queries pool from the same pixels, gated against each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rrsis_kernels import backends, library, reference
from rrsis_kernels._checks import Arguments
from rrsis_kernels.ops import _common
from rrsis_kernels.types import TwinStreamAttention

NAME = "twin_stream_attention"


def twin_stream_attention(
    pixels: Tensor,
    target_queries: Tensor,
    background_queries: Tensor,
    gate: Tensor | None = None,
    pixel_mask: Tensor | None = None,
) -> TwinStreamAttention:
    """Lets two sets of queries gather from the pixels, one drawn to where the gate is high, one to where it is low.

        target[h,k]     = Σ_n softmax_n(<target_queries[h,k], pixels[n]> + log σ(gate[n])) · pixels[n]
        background[h,k] = Σ_n softmax_n(<background_queries[h,k], pixels[n]> + log σ(−gate[n])) · pixels[n]

    There is no scale in it: scale the queries. No (queries × pixels) bias is ever made; gradients flow to the pixels,
    both query sets and the gate. The equations are this project's own reading of the text-conditioned bidirectional
    target–background decoder of BTDNet (arXiv 2502.08486).

    A query of a sample without a real pixel gives zeros and zero gradients. B, N, K of 0 are legal. Tensors may have
    any strides. Values under a mask must still be finite.

    Args:
        pixels: (B, N, C) fp32, bf16, fp16 or fp64.
        target_queries: (B, H, K, C), of the dtype of `pixels`.
        background_queries: (B, H, K, C), of the dtype of `pixels`.
        gate: (B, N) logit, of the dtype of `pixels` or fp32, or None.
        pixel_mask: (B, N) bool, True = real, or None.

    Returns:
        target and background, (B, H, K, C) each.

    Raises:
        TypeError: an argument is no tensor or of a wrong dtype.
        ValueError: an argument has a wrong rank, size or device.
        RuntimeError: a backend is forced that cannot run.
    """
    pixels, target_queries, background_queries, gate = _cast(pixels, target_queries, background_queries, gate)
    sizes = _check(pixels, target_queries, background_queries, gate, pixel_mask)
    differentiate = backends.will_be_differentiated(pixels, target_queries, background_queries, gate)
    backend = backends.choose(NAME, pixels.device.type, pixels.dtype, sizes, differentiate)
    tensors = (pixels, target_queries, background_queries, gate, pixel_mask)
    if backend == "reference":
        return _common.without_autocast(reference.twin_stream_attention, pixels.device.type, *tensors)
    target, background, _ = torch.ops.rrsis_kernels.twin_stream_forward(*map(_common.rows_contiguous, tensors))
    return TwinStreamAttention(target, background)


def _check(
    pixels: Tensor, target_queries: Tensor, background_queries: Tensor, gate: Tensor | None, pixel_mask: Tensor | None
) -> dict[str, int]:
    arguments = Arguments(NAME)
    arguments.check("pixels", pixels, "B N C")
    arguments.check("target_queries", target_queries, "B H K C")
    arguments.check("background_queries", background_queries, "B H K C")
    if gate is not None:
        arguments.check("gate", gate, "B N", (pixels.dtype, torch.float32))
    if pixel_mask is not None:
        arguments.check("pixel_mask", pixel_mask, "B N", (torch.bool,))
    return arguments.sizes


@torch.library.register_fake(f"{library.NAMESPACE}::twin_stream_forward", lib=library.DEFINITIONS)
def _fake_forward(
    pixels: Tensor, target_queries: Tensor, background_queries: Tensor, gate: Tensor | None, pixel_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, _ = target_queries.shape
    return (
        pixels.new_empty(target_queries.shape),
        pixels.new_empty(background_queries.shape),
        pixels.new_empty((batch, 2, heads, queries, 2), dtype=reference.accumulation_dtype(pixels.dtype)),
    )


@torch.library.register_fake(f"{library.NAMESPACE}::twin_stream_backward", lib=library.DEFINITIONS)
def _fake_backward(
    grad_target: Tensor | None,
    grad_background: Tensor | None,
    pixels: Tensor,
    target_queries: Tensor,
    background_queries: Tensor,
    gate: Tensor | None,
    pixel_mask: Tensor | None,
    target: Tensor,
    background: Tensor,
    pool_stats: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        pixels.new_empty(pixels.shape),
        pixels.new_empty(target_queries.shape),
        pixels.new_empty(background_queries.shape),
        pixels.new_empty((0,)) if gate is None else gate.new_empty(gate.shape),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)
    _common.remember_backend(ctx)
    ctx.mark_non_differentiable(output[-1])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, grad_target: Tensor | None, grad_background: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_target is None and grad_background is None:
        return (None,) * 5
    saved = ctx.saved_tensors  # read once: under activation checkpointing each reading computes the forward anew
    has_gate = saved[3] is not None
    with _common.backend_of_forward(ctx):
        *grads, grad_gate = torch.ops.rrsis_kernels.twin_stream_backward(
            _common.rows_contiguous(grad_target), _common.rows_contiguous(grad_background), *saved
        )
    return (*grads, grad_gate if has_gate else None, None)


def _cast(
    pixels: Tensor, target_queries: Tensor, background_queries: Tensor, gate: Tensor | None, *rest: Tensor | None
) -> tuple[Any, ...]:
    """Casts for autocast; a gate in fp32 stays, since a logit loses more in bf16 than features do."""
    pixels, target_queries, background_queries = _common.lower_together((pixels, target_queries, background_queries))
    if isinstance(gate, Tensor) and gate.dtype != torch.float32:
        (gate,) = _common.lower_together((gate,))
    return (pixels, target_queries, background_queries, gate, *rest)


torch.library.register_autograd(
    f"{library.NAMESPACE}::twin_stream_forward", _backward, setup_context=_setup_context, lib=library.DEFINITIONS
)
_common.register_first_order_only("twin_stream_backward")
_common.register_autocast("twin_stream_forward", _cast)
