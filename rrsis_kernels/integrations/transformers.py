"""Swaps the fusion layers of Hugging Face's Grounding DINO and MM-Grounding-DINO for ours, in place and back.

    from rrsis_kernels.integrations.transformers import accelerate
    accelerate(model)  # the number of layers swapped

Only the class of the layers changes: modules, weights, hooks and `state_dict` stay what they are.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from rrsis_kernels.nn import CorrelationProjections, correlate

_ATTENTION_HOMES = {
    "GroundingDinoBiMultiHeadAttention": "transformers.models.grounding_dino.modeling_grounding_dino",
    "MMGroundingDinoBiMultiHeadAttention": "transformers.models.mm_grounding_dino.modeling_mm_grounding_dino",
}
_ENCODER_HOMES = {
    "GroundingDinoEncoder": "transformers.models.grounding_dino.modeling_grounding_dino",
    "MMGroundingDinoEncoder": "transformers.models.mm_grounding_dino.modeling_mm_grounding_dino",
}
_PREFIX = "Fused"
_said: set[str] = set()


def accelerate(model: nn.Module) -> int:
    """Makes the model's fusion layers run on `rrsis_kernels`.

    Outputs and gradients equal the original's; a sample whose tokens (or pixels) are all padding gives the output's
    bias where the original gives NaN. A layer runs as the original, and says so once, where attention weights are asked
    for (`output_attentions=True`), where dropout is active, and where its projections are not plain `nn.Linear`
    (adapters, quantisation). Called by itself, outside its encoder, a swapped layer returns None for the weights.

    Args:
        model: a model with Grounding DINO or MM-Grounding-DINO in it, or such a layer itself.

    Returns:
        How many layers were swapped; those that are already are not counted.
    """
    swapped = 0
    for module in model.modules():
        original = type(module)
        if _ATTENTION_HOMES.get(original.__name__) == original.__module__:
            module.__class__ = _fused_class(original)
            swapped += 1
        elif _ENCODER_HOMES.get(original.__name__) == original.__module__:
            module.__class__ = _fused_class(original)
    return swapped


def restore(model: nn.Module) -> int:
    """Undoes `accelerate`.

    Args:
        model: what `accelerate` was given, or a part of it.

    Returns:
        How many layers were put back.
    """
    restored = 0
    for module in model.modules():
        if isinstance(module, (_FusedAttention, _FusedEncoder)):
            restored += isinstance(module, _FusedAttention)
            module.__dict__.pop("_weights_wanted", None)
            module.__class__ = type(module).__mro__[2]
    return restored


class _FusedAttention:
    """Stands before the original class and takes over its `forward` where it can."""

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_attention_mask: Tensor | None = None,
        text_attention_mask: Tensor | None = None,
    ) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """As the original's, whose masks are True where there is padding; attention weights are None."""
        reason = _reason_for_original(self)
        if reason is not None:
            _say_once(f"{type(self).__mro__[2].__name__} runs as shipped: {reason}")
            return super().forward(vision_features, text_features, vision_attention_mask, text_attention_mask)
        painted, pooled, _ = correlate(
            vision_features,
            text_features,
            _projections(self),
            self.num_heads,
            scale=self.scale,
            token_mask=None if text_attention_mask is None else ~text_attention_mask,
            pixel_mask=None if vision_attention_mask is None else ~vision_attention_mask,
        )
        return (painted, None), (pooled, None)


class _FusedEncoder:
    """Stands before the encoder's class and tells its layers whether attention weights are wanted."""

    def forward(self, *args: Any, output_attentions: bool | None = None, **kwargs: Any) -> Any:
        """As the original's."""
        wanted = self.config.output_attentions if output_attentions is None else output_attentions
        for module in self.modules():
            if isinstance(module, _FusedAttention):
                # It stays until the next forward, so that a checkpointed layer takes the same way when it is run again.
                module._weights_wanted = bool(wanted)
        return super().forward(*args, output_attentions=output_attentions, **kwargs)


def _projections(layer: Any) -> CorrelationProjections:
    return CorrelationProjections(
        pixel_query=layer.vision_proj,
        token_key=layer.text_proj,
        token_value=layer.values_text_proj,
        painted_out=layer.out_vision_proj,
        pixel_value=layer.values_vision_proj,
        pooled_out=layer.out_text_proj,
    )


def _reason_for_original(layer: Any) -> str | None:
    """Why the layer must run as it was shipped; None when ours can."""
    if getattr(layer, "_weights_wanted", False):
        return "attention weights are wanted (output_attentions=True), which the fused operators never make"
    if layer.training and layer.dropout > 0:
        return f"dropout of {layer.dropout} on the attention weights is active"
    if any(type(projection) is not nn.Linear for projection in _projections(layer)):
        return "a projection is not a plain torch.nn.Linear"
    return None


def _say_once(message: str) -> None:
    if torch.compiler.is_compiling() or message in _said:
        return
    _said.add(message)
    warnings.warn(message, stacklevel=3)


def _fused_class(original: type) -> type:
    """The subclass of `original` with our `forward`; made once and found by name, so that pickling works."""
    name = _PREFIX + original.__name__
    if name not in globals():
        ours = _FusedAttention if original.__name__ in _ATTENTION_HOMES else _FusedEncoder
        globals()[name] = type(name, (ours, original), {"__module__": __name__, "__doc__": original.__doc__})
    return globals()[name]


def __getattr__(name: str) -> type:
    """Makes a swapped class when unpickling asks for it in a process that has not swapped any layer yet."""
    original = name.removeprefix(_PREFIX)
    home = {**_ATTENTION_HOMES, **_ENCODER_HOMES}.get(original)
    if home is None or original == name:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _fused_class(getattr(importlib.import_module(home), original))
