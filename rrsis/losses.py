"""BTDNet's losses, as Python over the sums of one fused pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import rrsis_kernels
from rrsis.config import BTDNetConfig
from rrsis.decoder import DecoderOutput


def segmentation_loss(output: DecoderOutput, labels: Tensor, config: BTDNetConfig) -> Tensor:
    """Mean over layers and samples of w_j·BCE(z) + w_t·BCE(z_t) + w_b·BCE(z_b against 1−y) + w_d·Dice(y).

    Args:
        output: the decoder's predictions.
        labels: (B, Hm, Wm), the mask's share of each pixel, in [0, 1].
        config: gives the weights. Without a twin stream the terms of the single streams are left out.

    Returns:
        A scalar.
    """
    layers = len(output.target_logits)
    sums = rrsis_kernels.twin_mask_statistics(
        torch.cat(output.target_logits),
        torch.cat(output.background_logits),
        labels.to(output.target_logits[0].dtype).repeat(layers, 1, 1),
        joint_scale=0.5,
    )
    # Dice with +1 (arXiv 1606.04797, as in DETR and Mask2Former): bounded where the mask is empty.
    dice = 1 - (2 * sums.probability_mask_sum + 1) / (sums.probability_sum + sums.mask_sum + 1)
    entropy = config.joint_weight * sums.bce_joint
    if config.use_twin_stream:
        entropy = entropy + config.target_weight * sums.bce_target + config.background_weight * sums.bce_background
    return (entropy / sums.count + config.dice_weight * dice).mean()


def correlation_loss(maps: list[Tensor], labels: Tensor) -> Tensor:
    """Mean over stages of the BCE between the correlation map and the mask at that scale.

    Args:
        maps: logits (B, h, w) of each stage.
        labels: (B, Hm, Wm) float in [0, 1].

    Returns:
        A scalar.
    """
    losses = []
    for logits in maps:
        share = F.adaptive_avg_pool2d(labels[:, None], logits.shape[-2:])[:, 0]
        losses.append(F.binary_cross_entropy_with_logits(logits.float(), share.float()))
    return torch.stack(losses).mean()
