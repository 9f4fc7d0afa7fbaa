"""Pixel decoder and Target–Background TwinStream Decoder (T-BTD)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from rrsis.config import BTDNetConfig
from rrsis.positions import sine_positions
from rrsis_kernels import bidirectional_spatial_correlation
from rrsis_kernels import nn as kernel_nn

NUM_MEMORIES = 3
"""Maps that the queries read: at 1/32, 1/16 and 1/8."""

START_LOGIT = 4.0
"""Where the streams' logits start: 2% target, 98% background, about what images show."""


class PixelDecoder(nn.Module):
    """Feature pyramid (arXiv 1612.03144): memories at 1/32, 1/16 and 1/8, and perhaps a pixel map at 1/4.

    Args:
        channels: channels of the stages, fine to coarse.
        dim: channels of every output.
    """

    def __init__(self, channels: list[int], dim: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim)) for width in channels)
        # Separable convolutions: at 1/4 of the image a full 3×3 would cost more than the stage that feeds it.
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
                nn.Conv2d(dim, dim, 1, bias=False),
                nn.GroupNorm(8, dim),
                nn.ReLU(inplace=True),
            )
            for _ in channels
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features (B, h, w, C), fine to coarse → maps (B, dim, h, w), coarse to fine; the last is the pixel map."""
        outputs: list[Tensor] = []
        for index in reversed(range(len(features))):
            state = self.lateral[index](features[index]).permute(0, 3, 1, 2)
            if outputs:
                state = state + F.interpolate(outputs[-1], size=state.shape[-2:], mode="bilinear", align_corners=False)
            outputs.append(self.smooth[index](state))
        return outputs


class Perceptron(nn.Sequential):
    """Two linear layers with a ReLU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))


class PixelUpdate(nn.Module):
    """What the pixels do after they were painted: look at their neighbours, then think."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.neighbours = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.mlp = Perceptron(dim, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, h, w, C) → (B, h, w, C)."""
        context = self.neighbours(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return pixels + self.mlp(self.norm(context))


class Attention(nn.Module):
    """Multi-head attention of few queries to few keys, over `F.scaled_dot_product_attention`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Queries (B, Q, C), keys (B, L, C), key_mask (B, L) bool → (B, Q, C)."""
        query = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(keys).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(out.transpose(1, 2).flatten(2))


class DecoderState(NamedTuple):
    """What one decoder layer hands to the next.

    Attributes:
        pixels: the pixel map P, (B, h, w, C).
        normed: P with each pixel's channels normalised, (B, h·w, C); every reader of P starts from it.
        queries: target queries, then background queries, (B, 2K, C).
    """

    pixels: Tensor
    normed: Tensor
    queries: Tensor

    @classmethod
    def of(cls, pixels: Tensor, queries: Tensor) -> DecoderState:
        """Normalises the pixels; without weights, since a linear layer follows wherever they are read."""
        return cls(pixels, F.layer_norm(pixels.flatten(1, 2), pixels.shape[-1:]), queries)


class TwinStreamLayer(GradientCheckpointingLayer):
    """One walk both ways between the queries and the pixels.

    pool (queries read a memory, gated by the last joint prediction) → words → self-attention over both streams → FFN →
    paint (the pixel map reads the queries).
    """

    def __init__(self, config: BTDNetConfig) -> None:
        super().__init__()
        dim, heads = config.decoder_dim, config.decoder_heads
        self.num_queries = config.num_queries
        self.pool_norm = nn.LayerNorm(dim)
        self.memory_norm = nn.LayerNorm(dim)
        self.pool = kernel_nn.TwinStreamAttention(dim, heads, pixel_dim=dim)
        self.word_norm = nn.LayerNorm(dim)
        self.words = Attention(dim, heads)
        self.self_norm = nn.LayerNorm(dim)
        self.contrast = Attention(dim, heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = Perceptron(dim, config.decoder_ffn_dim)
        self.paint_query_norm = nn.LayerNorm(dim)
        self.paint = kernel_nn.BidirectionalSpatialCorrelation(
            dim, dim, dim, heads, order=config.bsc_order, direction="paint"
        )
        self.update = PixelUpdate(dim)

    def forward(
        self, state: DecoderState, memory: Tensor, gate: Tensor | None, words: Tensor, word_mask: Tensor
    ) -> DecoderState:
        """Runs the layer.

        Args:
            state: pixel map and queries.
            memory: (B, h, w, C), what the queries read.
            gate: (B, h, w) joint logit at the memory's scale, or None.
            words: (B, L, C).
            word_mask: (B, L) bool.
        """
        queries = state.queries + self._read(state.queries, memory, gate)
        queries = queries + self.words(self.word_norm(queries), words, word_mask)
        normed = self.self_norm(queries)
        queries = queries + self.contrast(normed, normed)
        queries = queries + self.mlp(self.mlp_norm(queries))
        return DecoderState.of(self._write(state, queries), queries)

    def _read(self, queries: Tensor, memory: Tensor, gate: Tensor | None) -> Tensor:
        _, height, width, channels = memory.shape
        pixels = self.memory_norm(memory.flatten(1, 2))
        pixels = pixels + sine_positions(height, width, channels, pixels)
        gate = None if gate is None else gate.flatten(1)
        streams = self.pool_norm(queries).split(self.num_queries, dim=1)
        # A single stream stands in for its missing twin, whose reading is left out.
        out = self.pool(pixels, streams[0], streams[-1], gate=gate)
        return torch.cat(out[: len(streams)], dim=1)

    def _write(self, state: DecoderState, queries: Tensor) -> Tensor:
        height, width, channels = state.pixels.shape[1:]
        reader = state.normed + sine_positions(height, width, channels, state.normed)
        painted = self.paint(reader, self.paint_query_norm(queries)).painted
        return self.update(state.pixels + painted.view(state.pixels.shape))


class FineDetail(nn.Module):
    """What is known at 1/2 of the image whatever the queries say: edges that a coarser pixel map has lost.

    The image's own part comes from one linear layer over its 4×4 patches, which gives the four places at 1/2 that share
    a place at 1/4; where the pixel map is coarser than 1/4, the first stage's features add to it.

    Args:
        config: the model's configuration.
        channels: channels of the first stage.
    """

    def __init__(self, config: BTDNetConfig, channels: int) -> None:
        super().__init__()
        self.dim = config.detail_dim
        self.ratio = config.pixel_map_stride // 4
        self.patches = nn.Linear(3 * 4 * 4, 4 * self.dim)
        self.features = None
        if self.ratio > 1:
            self.features = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 4 * self.dim, bias=False))

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """Images (B, 3, H, W), features (B, H/4, W/4, C) → (B, h·w, places · dim), places row by row in a pixel."""
        detail = self.patches(F.pixel_unshuffle(images, 4).permute(0, 2, 3, 1))
        if self.features is not None:
            detail = detail + self.features(features)
        detail = detail.unflatten(3, (2, 2, self.dim))
        detail = detail.unflatten(2, (-1, self.ratio)).unflatten(1, (-1, self.ratio))
        # (B, h, ratio, w, ratio, 2, 2, dim): rows of the coarse and of the fine step together, then columns.
        return detail.permute(0, 1, 3, 2, 5, 4, 6, 7).flatten(3).flatten(1, 2)


class JointHead(nn.Module):
    """Mask embeddings of both streams against the pixel map: z_t and z_b.

    With `detail_dim` the pixel map is spread to 1/2 of the image (each pixel into a square of places), joined with what
    is known there, and the masks are predicted at that size; thin objects need it. Without, at the pixel map's.
    """

    def __init__(self, config: BTDNetConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.num_queries = config.num_queries
        self.query_norm = nn.LayerNorm(dim)
        out = config.detail_dim or dim
        self.embedding = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, out))
        self.factor = config.pixel_map_stride // 2 if config.detail_dim else 1
        # No bias: the detail has one.
        self.spread = nn.Linear(dim, self.factor**2 * out, bias=False) if config.detail_dim else None
        # At the start most of an image is background: say so, or the first steps are spent on learning it. The count
        # undoes what logsumexp adds where K queries agree.
        count = math.log(config.num_queries)
        self.target_bias = nn.Parameter(torch.tensor([-START_LOGIT - count]))  # FSDP2 shards no scalars
        self.background_bias = nn.Parameter(torch.tensor([START_LOGIT - count])) if config.use_twin_stream else None
        self.scale = out**-0.5

    def forward(self, state: DecoderState, detail: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predicts.

        Args:
            state: pixel map (B, h, w, C) and queries.
            detail: from `FineDetail`, or None.

        Returns:
            Target and background logits, (B, h, w) each, or at 1/2 of the image with detail; without a background
            stream its logits are −z_t.
        """
        height, width = state.pixels.shape[1:3]
        embedding = self.embedding(self.query_norm(state.queries)) * self.scale
        features = state.normed if self.spread is None else self._join(state.normed, detail)
        streams = _stream_logits(embedding.unflatten(1, (-1, self.num_queries)), features)
        streams = streams.unflatten(-1, (height, width, -1)).permute(0, 1, 4, 2, 3).flatten(1, 2)
        streams = F.pixel_shuffle(streams, self.factor)
        target = streams[:, 0] + self.target_bias
        if self.background_bias is None:
            return target, -target
        return target, streams[:, 1] + self.background_bias

    def _join(self, pixels: Tensor, detail: Tensor) -> Tensor:
        """Pixels (B, N, C), detail (B, N, places · D) → (B, N · places, D)."""
        joint = torch.addmm(detail.flatten(0, 1), pixels.flatten(0, 1), self.spread.weight.t())
        return joint.relu_().view(pixels.shape[0], self.factor**2 * pixels.shape[1], -1)


def _stream_logits(embedding: Tensor, features: Tensor) -> Tensor:
    """Logsumexp over a stream's queries of their scores with every pixel: BSC's `pixel_lse`, with nothing to paint.

    Args:
        embedding: (B, S, K, C), S streams of K queries.
        features: (B, N, C).

    Returns:
        (B, S, N).
    """
    nothing = embedding.new_empty((*embedding.shape[:-1], 0))
    return bidirectional_spatial_correlation(features, embedding, nothing, direction="paint").pixel_lse


class DecoderOutput(NamedTuple):
    """Predictions of every layer.

    Attributes:
        target_logits: z_t of each layer, (B, h, w) each.
        background_logits: z_b of each layer.
    """

    target_logits: list[Tensor]
    background_logits: list[Tensor]

    def joint_logits(self) -> list[Tensor]:
        """The joint logit of each layer."""
        return [joint_logit(*pair) for pair in zip(self.target_logits, self.background_logits, strict=True)]


def joint_logit(target: Tensor, background: Tensor) -> Tensor:
    """The joint logit z = (z_t − z_b)/2; without the half, BCE(z) would fight BCE(z_t) and BCE(z_b)."""
    return (target - background) * 0.5


class TwinStreamDecoder(nn.Module):
    """Target and background queries that read the image, contrast with each other and write back.

    Args:
        config: the model's configuration.
        fine_dim: channels of the first stage.
        token_dim: channels of the words.
    """

    def __init__(self, config: BTDNetConfig, fine_dim: int, token_dim: int) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.config = config
        streams = 2 if config.use_twin_stream else 1
        self.queries = nn.Parameter(torch.randn(streams, config.num_queries, dim) * 0.02)
        self.stream_embedding = nn.Parameter(torch.randn(streams, 1, dim) * 0.02)
        self.word_norm = nn.LayerNorm(token_dim)
        self.words = nn.Linear(token_dim, dim)
        self.sentence = nn.Linear(dim, dim)
        self.layers = nn.ModuleList(TwinStreamLayer(config) for _ in range(config.decoder_layers))
        self.detail = FineDetail(config, fine_dim) if config.detail_dim else None
        self.head = JointHead(config)

    def forward(
        self, images: Tensor, fine: Tensor, pyramid: list[Tensor], tokens: Tensor, token_mask: Tensor
    ) -> DecoderOutput:
        """Decodes.

        Args:
            images: (B, 3, H, W).
            fine: (B, H/4, W/4, fine_dim), features of the first stage.
            pyramid: maps (B, C, h, w), coarse to fine: at 1/32, 1/16 and 1/8, the memories, then the pixel map where it
                is finer.
            tokens: (B, L, token_dim).
            token_mask: (B, L) bool.
        """
        words = self.words(self.word_norm(tokens))
        detail = None if self.detail is None else self.detail(images, fine)
        memories = [memory.permute(0, 2, 3, 1) for memory in pyramid[:NUM_MEMORIES]]
        state = DecoderState.of(pyramid[-1].permute(0, 2, 3, 1).contiguous(), self._start(words, token_mask))
        output = DecoderOutput([], [])
        for index, layer in enumerate(self.layers):
            memory = memories[index % len(memories)]
            gate = None
            if index > 0:
                size = memory.shape[1:3]
                memory = _area_resample(state.pixels.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
                gate = self._gate(output, size)
            state = layer(state, memory, gate, words, token_mask)
            target, background = self.head(state, detail)
            output.target_logits.append(target)
            output.background_logits.append(background)
        return output

    def _start(self, words: Tensor, token_mask: Tensor) -> Tensor:
        weight = token_mask[..., None].to(words.dtype)
        sentence = (words * weight).sum(1) / weight.sum(1).clamp(min=1)
        start = self.queries + self.stream_embedding
        return start.flatten(0, 1) + self.sentence(sentence)[:, None]

    def _gate(self, output: DecoderOutput, size: torch.Size) -> Tensor | None:
        if not self.config.use_gate:
            return None
        joint = joint_logit(output.target_logits[-1], output.background_logits[-1])
        # Of the probabilities, not of the logits: the sure background around an object smaller than a cell of the
        # memory would outweigh it, and the gate be shut everywhere. Not in bf16, which has no number from 0.997 to 1.
        probability = joint.to(torch.promote_types(joint.dtype, torch.float32)).sigmoid()
        share = _area_resample(probability[:, None], size)[:, 0]
        gate = torch.logit(share, eps=1 / (1 + math.exp(self.config.gate_clamp)))
        return gate.detach() if self.config.detach_gate else gate


def _area_resample(maps: Tensor, size: torch.Size) -> Tensor:
    """(B, C, h, w) → (B, C, *size), each output the mean of the inputs that it covers."""
    (height, width), (rows, columns) = maps.shape[2:], size
    if height % rows == 0 and width % columns == 0:
        # The same numbers from windows whose size stays when the image's does not: a graph for any size can hold it.
        return F.avg_pool2d(maps, (height // rows, width // columns))
    return F.adaptive_avg_pool2d(maps, size)
