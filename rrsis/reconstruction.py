"""Dual-Modal Object Learning (D-MOLS): each modality's hidden features rebuilt from the other. Training only."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rrsis_kernels
from rrsis.config import BTDNetConfig
from rrsis.positions import sine_positions
from rrsis_kernels import nn as kernel_nn


class HiddenPlaces(NamedTuple):
    """Where features are hidden.

    Attributes:
        pixels: (B, N) bool.
        tokens: (B, L) bool.
    """

    pixels: Tensor
    tokens: Tensor


def draw_hidden_places(
    object_share: Tensor, token_mask: Tensor, noun_mask: Tensor | None, config: BTDNetConfig
) -> HiddenPlaces:
    """Draws what D-MOLS hides: pixels inside and outside the object, words, and always the object's noun.

    Args:
        object_share: (B, N) float, how much of each pixel the object covers.
        token_mask: (B, L) bool, True for real tokens.
        noun_mask: (B, L) bool, True for the object's noun; None when it is not known.
        config: gives the shares.

    Returns:
        The hidden places, drawn from torch's default generator of the tensors' device.
    """
    inside = object_share >= 0.5
    ratio = torch.where(inside, config.object_mask_ratio, config.pixel_mask_ratio)
    pixels = torch.rand_like(object_share) < ratio
    # The first token ([CLS]) stays: hiding it says nothing about a word.
    words = token_mask.clone()
    words[:, 0] = False
    tokens = (torch.rand(token_mask.shape, device=token_mask.device) < config.word_mask_ratio) & words
    if noun_mask is not None:
        tokens = tokens | (noun_mask & words)
    return HiddenPlaces(pixels, tokens)


class DualModalReconstruction(nn.Module):
    """Hides features of both modalities, runs one BSC block, and scores the rebuilt ones by their cosine.

    The targets are the originals without gradient, less their mean over the sample: raw features share one direction,
    which would make the task trivial. This is the project's own reading of the paper.

    Args:
        config: the model's configuration.
        token_dim: channels of the words.
    """

    def __init__(self, config: BTDNetConfig, token_dim: int) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.config = config
        self.pixel_norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(token_dim)
        self.pixel_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.word_token = nn.Parameter(torch.randn(token_dim) * 0.02)
        self.correlation = kernel_nn.BidirectionalSpatialCorrelation(
            dim, token_dim, config.bsc_embed_dims[1], config.bsc_num_heads[1], order=config.bsc_order
        )
        self.rebuild_pixels = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.rebuild_tokens = nn.Sequential(
            nn.LayerNorm(token_dim), nn.Linear(token_dim, token_dim), nn.GELU(), nn.Linear(token_dim, token_dim)
        )

    def forward(
        self, memory: Tensor, tokens: Tensor, token_mask: Tensor, labels: Tensor, noun_mask: Tensor | None
    ) -> Tensor:
        """Computes the loss.

        Args:
            memory: (B, C, h, w), the memory whose pixels are hidden.
            tokens: (B, L, token_dim).
            token_mask: (B, L) bool.
            labels: (B, Hm, Wm) float, the mask.
            noun_mask: (B, L) bool or None.

        Returns:
            The mean over both modalities of 1 − cos at the hidden places, a scalar.
        """
        height, width = memory.shape[-2:]
        pixels = self.pixel_norm(memory.flatten(2).transpose(1, 2))
        words = self.token_norm(tokens)
        share = F.adaptive_avg_pool2d(labels[:, None], (height, width)).flatten(1)
        hidden = draw_hidden_places(share, token_mask, noun_mask, self.config)

        seen_pixels = torch.where(hidden.pixels[..., None], self.pixel_token.to(pixels.dtype), pixels)
        seen_words = torch.where(hidden.tokens[..., None], self.word_token.to(words.dtype), words)
        seen_pixels = seen_pixels + sine_positions(height, width, pixels.shape[-1], pixels)
        out = self.correlation(seen_pixels, seen_words, token_mask=token_mask)
        # Hidden places keep their position and mask token, so that the rebuilt feature can depend on where it is.
        rebuilt_pixels = self.rebuild_pixels(seen_pixels + out.painted)
        rebuilt_words = self.rebuild_tokens(seen_words + out.pooled)

        everywhere = torch.ones_like(hidden.pixels)
        pixel_loss = _centred_cosine(rebuilt_pixels, pixels, hidden.pixels, everywhere)
        word_loss = _centred_cosine(rebuilt_words, words, hidden.tokens, token_mask)
        return 0.5 * (pixel_loss + word_loss).mean()


def _centred_cosine(rebuilt: Tensor, original: Tensor, hidden: Tensor, real: Tensor) -> Tensor:
    target = original.detach()
    weight = real[..., None].to(target.dtype)
    target = target - (target * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    return rrsis_kernels.masked_cosine_loss(rebuilt, target.to(rebuilt.dtype), hidden)
