"""A LAVT-style baseline: the same encoders, words that only flow to pixels, and a convolutional decoder.

LAVT (arXiv 2112.02244) lets every pixel gather from the words after each backbone stage and predicts the mask from the
stages' features alone. It stands here as the peer that BTDNet is compared with in the same trainer, on the same data
and with the same losses (BCE and Dice of one mask). It is written from the paper's equations, not a copy of its code,
and no figure of that paper is claimed for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrsis.config import BTDNetConfig
from rrsis.decoder import DecoderOutput
from rrsis.encoders import EncoderOutput, FusedEncoder
from rrsis.losses import segmentation_loss
from rrsis.model import BTDNetOutput, ReferringModel
from rrsis.positions import sine_positions


class PixelWordAttention(nn.Module):
    """Pixel–word attention and language gate after one stage (arXiv 2112.02244, equations 1 to 8).

    G[n] gathers the words with one head; F = W_o (W_m V ∘ W_w G); V ← V + tanh(MLP F) ∘ F. The decoder reads F.

    Args:
        pixel_dim: channels C of the stage.
        token_dim: channels of the words.
        feeds: whether another stage follows, which the gated features feed.
        positions: whether pixels ask with their place in the image, as BTDNet's do. LAVT's do not.
    """

    def __init__(self, pixel_dim: int, token_dim: int, feeds: bool, positions: bool) -> None:
        super().__init__()
        self.positions = positions
        self.query = nn.Linear(pixel_dim, pixel_dim)
        self.key_value = nn.Linear(token_dim, 2 * pixel_dim)
        self.query_norm = nn.InstanceNorm1d(pixel_dim)
        self.gathered = nn.Linear(pixel_dim, pixel_dim)
        self.gathered_norm = nn.InstanceNorm1d(pixel_dim)
        self.visual = nn.Linear(pixel_dim, pixel_dim)
        self.mixed = nn.Linear(pixel_dim, pixel_dim)
        gate = (nn.Linear(pixel_dim, pixel_dim, bias=False), nn.ReLU(), nn.Linear(pixel_dim, pixel_dim, bias=False))
        self.gate = nn.Sequential(*gate, nn.Tanh()) if feeds else None

    def forward(self, features: Tensor, tokens: Tensor, token_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, h, w, C), tokens (B, L, E), mask (B, L) bool → fused features, and what the decoder reads."""
        _, height, width, channels = features.shape
        pixels = asking = features.flatten(1, 2)
        if self.positions:
            asking = pixels + sine_positions(height, width, channels, pixels)
        query = self.query_norm(self.query(asking).transpose(1, 2)).transpose(1, 2)
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=token_mask[:, None, :])
        gathered = self.gathered_norm(self.gathered(gathered).transpose(1, 2)).transpose(1, 2)
        mixed = self.mixed(F.relu(self.visual(asking)) * gathered).relu().view_as(features)
        return features if self.gate is None else features + self.gate(mixed) * mixed, mixed


class PixelWordEncoder(FusedEncoder):
    """The encoders of BTDNet with pixel–word attention in the place of BSC; the words stay as BERT left them."""

    def __init__(self, config: BTDNetConfig) -> None:
        super().__init__(config)
        self.fusions = nn.ModuleList(
            PixelWordAttention(
                channels, self.token_dim, feeds=index + 1 < len(self.channels), positions=config.lavt_positions
            )
            for index, channels in enumerate(self.channels)
        )

    def join(self, unfused: list[Tensor], tokens: Tensor, token_mask: Tensor) -> EncoderOutput:
        """See `FusedEncoder.join`; the maps stay empty."""
        state, features = unfused[0], []
        for index, fusion in enumerate(self.fusions):
            if index > 0:
                state = self.image.run_stage(index, state)
            state, mixed = fusion(state, tokens, token_mask)
            features.append(mixed)
        return EncoderOutput(features, tokens, [])


class ConvolutionalDecoder(nn.Module):
    """From coarse to fine: upsample, join the finer stage, two 3×3 convolutions; then one logit a pixel.

    With `detail_dim` the last map is taken to 1/2 of the image and joined there with the image's own pixels, so that
    the baseline predicts at the size at which BTDNet does.

    Args:
        channels: of the stages, fine to coarse.
        dim: channels in the decoder.
        detail_dim: see `BTDNetConfig`.
    """

    def __init__(self, channels: list[int], dim: int, detail_dim: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        width = channels[-1]
        for finer in reversed(channels[:-1]):
            self.steps.append(_double_convolution(width + finer, dim))
            width = dim
        self.detail = nn.Conv2d(3, detail_dim, 3, stride=2, padding=1) if detail_dim else None
        self.last = _double_convolution(dim + detail_dim, dim) if detail_dim else nn.Identity()
        self.logit = nn.Conv2d(dim, 1, 1)
        # At the start most of an image is not the object, as in BTDNet's head.
        nn.init.constant_(self.logit.bias, -4.0)

    def forward(self, images: Tensor, features: list[Tensor]) -> Tensor:
        """Images (B, 3, H, W), features (B, h, w, C), fine to coarse → logits at 1/4 (1/2 with detail) of the image."""
        maps = [feature.permute(0, 3, 1, 2) for feature in features]
        state = maps[-1]
        for step, finer in zip(self.steps, reversed(maps[:-1]), strict=True):
            state = step(torch.cat([_resize(state, finer), finer], dim=1))
        if self.detail is not None:
            detail = self.detail(images).relu()
            state = self.last(torch.cat([_resize(state, detail), detail], dim=1))
        return self.logit(state)[:, 0]


def _resize(state: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(state, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _double_convolution(width: int, dim: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (width, dim):
        layers += [nn.Conv2d(channels, dim, 3, padding=1, bias=False), nn.GroupNorm(8, dim), nn.ReLU()]
    return nn.Sequential(*layers)


class LAVTForReferringSegmentation(ReferringModel):
    """The LAVT-style baseline behind BTDNet's interface; of its configuration the decoder's parts have no meaning here.

    Args:
        config: with `architecture="lavt"`.
    """

    def __init__(self, config: BTDNetConfig) -> None:
        super().__init__(config)
        self.encoder = PixelWordEncoder(config)
        self.decoder = ConvolutionalDecoder(self.encoder.channels, config.decoder_dim, config.detail_dim)
        self.post_init()

    def decode(self, pixel_values: Tensor, encoded: EncoderOutput, token_mask: Tensor) -> tuple[BTDNetOutput, Any]:
        """See `ReferringModel.decode`; the background's logits are −z_t, and there is a single layer."""
        logits = self.decoder(pixel_values, encoded.features)
        decoded = DecoderOutput([logits], [-logits])
        return BTDNetOutput(logits=logits, layer_logits=(logits,)), decoded

    def add_losses(
        self, output: BTDNetOutput, context: DecoderOutput, share: Tensor, token_mask: Tensor, noun_mask: Tensor | None
    ) -> None:
        """See `ReferringModel.add_losses`: BCE and Dice of the one mask."""
        output.segmentation_loss = output.loss = segmentation_loss(context, share, self.config)
