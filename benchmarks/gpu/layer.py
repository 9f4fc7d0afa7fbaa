"""Grounding DINO's fusion layer on a device: as transformers ships it, and ours in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks import layer_peers
from rrsis_kernels import use_backend

LABEL = "Grounding DINO layer with its projections"
PIXELS, TOKENS, CHANNELS, EMBED, HEADS = 17821, 20, 256, 1024, 4

Implementation = Callable[..., Sequence[Tensor]]


def make(dtype: torch.dtype, device: torch.device, quick: bool) -> tuple[nn.Module, list[Tensor]]:
    """The layer, and its inputs pixels and tokens."""
    from transformers.models.grounding_dino import modeling_grounding_dino as dino

    count = 100 if quick else PIXELS
    layer = layer_peers.make_layer(dino, CHANNELS, EMBED, HEADS).to(device, dtype)
    sizes = ((1, count, CHANNELS), (1, TOKENS, CHANNELS))
    return layer, [torch.randn(size, device=device).to(dtype).requires_grad_() for size in sizes]


def implementations(layer: nn.Module, ours: str) -> dict[str, Callable[[], Implementation]]:
    """What is compared, in this order: ours takes the layer's place and cannot give it back."""

    def run(function: Callable, pixels: Tensor, tokens: Tensor) -> list[Tensor]:
        (vision, _), (text, _) = function(pixels, tokens)
        return [vision, text]

    def shipped() -> Implementation:
        return lambda *inputs: run(layer, *inputs)

    def compiled() -> Implementation:
        function = torch.compile(layer, dynamic=False)
        return lambda *inputs: run(function, *inputs)

    def accelerated(backend: str) -> Callable[[], Implementation]:
        def make_it() -> Implementation:
            from rrsis_kernels.integrations.transformers import accelerate

            accelerate(layer)

            def call(*inputs: Tensor) -> list[Tensor]:
                with use_backend(backend):
                    return run(layer, *inputs)

            return call

        return make_it

    return {
        "transformers": shipped,
        "transformers, torch.compile": compiled,
        "our layer, reference": accelerated("reference"),
        f"our layer, {ours}": accelerated(ours),
    }
