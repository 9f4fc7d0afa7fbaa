"""The four operators in plain PyTorch: the readable specification, and the backend that runs anywhere.

Every function here is differentiable by autograd alone, takes any device and any floating dtype, and compiles to one
graph. The arithmetic is what a PyTorch user would write: products in the dtype of the inputs, softmax and sums in fp32
(fp64 for fp64 inputs). Arguments are not checked; the public functions in `rrsis_kernels.ops` do that.

The equations are this project's own reading of BTDNet (arXiv 2502.08486), which describes its parts in words.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rrsis_kernels.types import BidirectionalSpatialCorrelation, TwinMaskStatistics, TwinStreamAttention

COSINE_EPS = 1e-8
"""Smallest norm that `masked_cosine_loss` divides by."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums over tokens and pixels are taken in: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Softmax over the real keys; a row without any is all zeros and has no gradient.

    Args:
        scores: of any shape.
        mask: bool, broadcastable to `scores`, True = real; None when all keys are.
        dim: the keys' dimension.

    Returns:
        Probabilities of the shape of `scores`.
    """
    if mask is None:
        return scores.softmax(dim)
    # A row of nothing but -inf would give NaN, and NaN times zero is NaN in the backward: such rows are filled with a
    # number instead, and what they yield is cut off on both sides.
    real = mask.any(dim, keepdim=True)
    filled = scores.masked_fill(~mask, -torch.inf).masked_fill(~real, 0.0)
    return filled.softmax(dim).masked_fill(~mask, 0.0)


def bidirectional_spatial_correlation(
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None = None,
    key_bias: Tensor | None = None,
    token_mask: Tensor | None = None,
    pixel_mask: Tensor | None = None,
    *,
    direction: str = "both",
) -> BidirectionalSpatialCorrelation:
    """`S[h,l,n] = <key[h,l], pixel[n]> + bias[h,l]`; paint and pool are its two softmaxes.

    See `rrsis_kernels.bidirectional_spatial_correlation` for arguments and result.
    """
    batch, heads, tokens, channels = keys.shape
    rows = keys.reshape(batch, heads * tokens, channels)
    if key_bias is None:
        scores = rows @ pixels.transpose(1, 2)
    else:
        scores = torch.baddbmm(key_bias.reshape(batch, heads * tokens, 1), rows, pixels.transpose(1, 2))
    scores = scores.unflatten(1, (heads, tokens)).to(accumulation_dtype(pixels.dtype))  # (B, H, L, N)

    painted = pooled = pixel_lse = None
    if direction != "pool":
        mask = None if token_mask is None else token_mask[:, None, :, None]
        real = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        pixel_lse = real.logsumexp(2)
        weights = masked_softmax(scores, mask, 2).to(pixels.dtype)
        painted = weights.flatten(1, 2).transpose(1, 2) @ values.reshape(batch, heads * tokens, values.shape[-1])
    if direction != "paint":
        mask = None if pixel_mask is None else pixel_mask[:, None, None, :]
        weights = masked_softmax(scores, mask, 3).to(pixels.dtype)
        pooled = (weights.flatten(1, 2) @ pixels).unflatten(1, (heads, tokens))
    return BidirectionalSpatialCorrelation(painted, pooled, pixel_lse)


def twin_stream_attention(
    pixels: Tensor,
    target_queries: Tensor,
    background_queries: Tensor,
    gate: Tensor | None = None,
    pixel_mask: Tensor | None = None,
) -> TwinStreamAttention:
    """Two pools over one read of the pixels, gated by log σ(±gate).

    See `rrsis_kernels.twin_stream_attention` for arguments and result.
    """
    queries = torch.stack([target_queries, background_queries], 1)  # (B, 2, H, K, C)
    scores = queries.flatten(1, 3) @ pixels.transpose(1, 2)
    scores = scores.unflatten(1, queries.shape[1:4]).to(accumulation_dtype(pixels.dtype))  # (B, 2, H, K, N)
    if gate is not None:
        gate = gate.to(scores.dtype)
        scores = scores + F.logsigmoid(torch.stack([gate, -gate], 1))[:, :, None, None, :]
    mask = None if pixel_mask is None else pixel_mask[:, None, None, None, :]
    weights = masked_softmax(scores, mask, 4).to(pixels.dtype)
    pooled = (weights.flatten(1, 3) @ pixels).unflatten(1, queries.shape[1:4])
    return TwinStreamAttention(pooled[:, 0], pooled[:, 1])


def twin_mask_statistics(
    target_logits: Tensor,
    background_logits: Tensor,
    mask: Tensor,
    valid: Tensor | None = None,
    *,
    joint_scale: float = 1.0,
) -> TwinMaskStatistics:
    """Upsamples both maps to the mask's size and sums over the valid pixels.

    See `rrsis_kernels.twin_mask_statistics` for arguments and result.
    """
    dtype = accumulation_dtype(target_logits.dtype)
    size = mask.shape[1:]

    def upsample(logits: Tensor) -> Tensor:
        logits = logits.to(dtype)
        if mask.numel() == 0:  # interpolate refuses to make an empty map
            return logits.sum((1, 2), keepdim=True).expand(mask.shape) * 0
        return F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    target, background = upsample(target_logits), upsample(background_logits)
    joint = joint_scale * (target - background)
    truth = mask.to(dtype).detach()
    counted = torch.ones_like(truth, dtype=torch.bool) if valid is None else valid

    def total(term: Tensor) -> Tensor:
        return torch.where(counted, term, 0.0).sum((1, 2), dtype=dtype)

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")

    probability = joint.sigmoid()
    chosen, object_ = joint > 0, truth > 0.5
    return TwinMaskStatistics(
        bce_joint=total(cross_entropy(joint, truth)),
        bce_target=total(cross_entropy(target, truth)),
        bce_background=total(cross_entropy(background, 1 - truth)),
        probability_sum=total(probability),
        probability_mask_sum=total(probability * truth),
        mask_sum=total(truth),
        count=total(torch.ones_like(truth)),
        intersection=total((chosen & object_).to(dtype)),
        union=total((chosen | object_).to(dtype)),
    )


def masked_cosine_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of 1 − cos over the masked rows of each sample.

    See `rrsis_kernels.masked_cosine_loss` for arguments and result.
    """
    dtype = accumulation_dtype(prediction.dtype)
    prediction, target = prediction.to(dtype), target.to(dtype)
    lengths = [torch.linalg.vector_norm(side, dim=-1).clamp_min(COSINE_EPS) for side in (prediction, target)]
    distance = 1 - (prediction * target).sum(-1) / (lengths[0] * lengths[1])
    return torch.where(mask, distance, 0.0).sum(1) / mask.sum(1).clamp_min(1)
