"""Grounding DINO's fusion layer as transformers ships it, as ours, and as its peers compute it from the same weights.

Every peer takes (layer, pixels, tokens, masks) and returns a `Peer`. The masks mark padding, as transformers' do, and
mark none: a masked token is left out of the painting here, while `bidirectional-cross-attention` leaves it out of the
pooling too. For the same reason the four inner projections' biases are zero: that package has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import measure

INNER = ("vision_proj", "text_proj", "values_vision_proj", "values_text_proj")
"""The projections in front of the attention."""


class Peer(NamedTuple):
    """One implementation of the layer.

    Attributes:
        call: returns the vision and the text output.
        parameters: names of the layer's parameters that it uses.
    """

    call: measure.Call
    parameters: Sequence[str]


def make_layer(dino, width, embed_dim, heads):
    """transformers' layer without dropout; its inner biases are zero.

    Args:
        dino: the module of transformers that has it.
        width: channels C of pixels and tokens.
        embed_dim: E.
        heads: H.
    """
    config = dino.GroundingDinoConfig(
        d_model=width,
        encoder_ffn_dim=2 * embed_dim,
        encoder_attention_heads=2 * heads,
        fusion_dropout=0.0,
        backbone_config=None,
    )
    layer = dino.GroundingDinoBiMultiHeadAttention(config).eval()
    for name in INNER:
        nn.init.zeros_(getattr(layer, name).bias)
    return layer


def make_inputs(layer, count, tokens):
    """pixels (1, N, C), tokens (1, L, C), and masks without padding."""
    pixels, words = torch.randn(1, count, layer.vision_dim), torch.randn(1, tokens, layer.text_dim)
    masks = {
        "vision_attention_mask": torch.zeros(1, count, dtype=torch.bool),
        "text_attention_mask": torch.zeros(1, tokens, dtype=torch.bool),
    }
    return pixels, words, masks


def _all_parameters(layer):
    return [name for name, _ in layer.named_parameters()]


def _outputs(layer, pixels, tokens, masks):
    """Vision and text output, without the attention weights."""
    (vision, _), (text, _) = layer(pixels, tokens, **masks)
    return vision, text


def shipped(layer, *inputs):
    """transformers' own layer."""
    return Peer(lambda: _outputs(layer, *inputs), _all_parameters(layer))


def shipped_compiled(layer, *inputs):
    """transformers' own layer under torch.compile."""
    function = torch.compile(layer)
    return Peer(lambda: _outputs(function, *inputs), _all_parameters(layer))


def _swap(layer):
    """Puts our layer in place of the given one, same weights."""
    from rrsis_kernels.integrations.transformers import accelerate

    assert accelerate(layer) == 1
    return layer


def fused(layer, *inputs):
    """Our layer on the C++ kernels."""
    _swap(layer)
    return Peer(measure.on_cpu_kernels(lambda: _outputs(layer, *inputs)), _all_parameters(layer))


def absorbed(layer, *inputs):
    """Our layer on the reference backend: what absorbing alone is worth."""
    _swap(layer)
    return Peer(measure.on_reference(lambda: _outputs(layer, *inputs)), _all_parameters(layer))


def absorbed_compiled(layer, *inputs):
    """Our layer on the reference backend under torch.compile."""
    function = torch.compile(_swap(layer))
    return Peer(measure.on_reference(lambda: _outputs(function, *inputs)), _all_parameters(layer))


def two_sdpa_calls(layer, pixels, tokens, masks):
    """The layer's projections around F.scaled_dot_product_attention, once in each direction."""

    def heads_of(features):
        return features.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)

    def attend(queries, keys, values, padding):
        out = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=~padding[:, None, None, :], scale=layer.scale
        )
        return out.transpose(1, 2).flatten(2)

    def call():
        queries, keys = heads_of(layer.vision_proj(pixels)), heads_of(layer.text_proj(tokens))
        vision = attend(queries, keys, heads_of(layer.values_text_proj(tokens)), masks["text_attention_mask"])
        text = attend(keys, queries, heads_of(layer.values_vision_proj(pixels)), masks["vision_attention_mask"])
        return layer.out_vision_proj(vision), layer.out_text_proj(text)

    return Peer(call, _all_parameters(layer))


def bidirectional_cross_attention(layer, pixels, tokens, masks):
    """PyPI's `bidirectional-cross-attention` with the layer's weights; exact, see the module's docstring."""
    package = pytest.importorskip(
        "bidirectional_cross_attention", reason="pip install bidirectional-cross-attention (the extra `bench`)"
    )
    module = package.BidirectionalCrossAttention(
        dim=layer.vision_dim, context_dim=layer.text_dim, heads=layer.num_heads, dim_head=layer.head_dim
    )
    module.to_qk.weight, module.context_to_qk.weight = layer.vision_proj.weight, layer.text_proj.weight
    module.to_v.weight, module.context_to_v.weight = layer.values_vision_proj.weight, layer.values_text_proj.weight
    module.to_out, module.context_to_out = layer.out_vision_proj, layer.out_text_proj
    real = {"mask": ~masks["vision_attention_mask"], "context_mask": ~masks["text_attention_mask"]}
    inner_biases = {f"{name}.bias" for name in INNER}
    return Peer(
        lambda: module(pixels, tokens, **real), [name for name in _all_parameters(layer) if name not in inner_biases]
    )


PEERS = {
    measure.OURS: fused,
    "absorbed, eager": absorbed,
    "absorbed, torch.compile": absorbed_compiled,
    "transformers": shipped,
    "transformers, torch.compile": shipped_compiled,
    "projections, two SDPA calls": two_sdpa_calls,
    "bidirectional-cross-attention": bidirectional_cross_attention,
}
