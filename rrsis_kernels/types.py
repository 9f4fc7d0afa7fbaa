"""What the public functions return: tuples of plain tensors with names."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BidirectionalSpatialCorrelation(NamedTuple):
    """Result of `rrsis_kernels.bidirectional_spatial_correlation`; what was not asked for is None.

    Attributes:
        painted: (B, N, D), what each pixel gathered from the tokens.
        pooled: (B, H, L, C), what each token gathered from the pixels.
        pixel_lse: (B, H, N) fp32 (fp64 for fp64 inputs), log Σ_l exp S: how strongly a pixel answers to any token.
    """

    painted: Tensor | None
    pooled: Tensor | None
    pixel_lse: Tensor | None


class TwinStreamAttention(NamedTuple):
    """Result of `rrsis_kernels.twin_stream_attention`.

    Attributes:
        target: (B, H, K, C), what the target queries gathered.
        background: (B, H, K, C), what the background queries gathered.
    """

    target: Tensor
    background: Tensor


class TwinMaskStatistics(NamedTuple):
    """Result of `rrsis_kernels.twin_mask_statistics`: sums over each sample's valid pixels, (B,) each.

    With z_t and z_b the upsampled logits, z = joint_scale·(z_t − z_b) and y the mask:

    Attributes:
        bce_joint: Σ BCE(z, y).
        bce_target: Σ BCE(z_t, y).
        bce_background: Σ BCE(z_b, 1 − y).
        probability_sum: Σ σ(z).
        probability_mask_sum: Σ σ(z)·y.
        mask_sum: Σ y.
        count: number of valid pixels.
        intersection: Σ [z > 0 and y > ½].
        union: Σ [z > 0 or y > ½].
    """

    bce_joint: Tensor
    bce_target: Tensor
    bce_background: Tensor
    probability_sum: Tensor
    probability_mask_sum: Tensor
    mask_sum: Tensor
    count: Tensor
    intersection: Tensor
    union: Tensor
