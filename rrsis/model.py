"""BTDNet as a transformers model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from rrsis.config import BTDNetConfig
from rrsis.decoder import NUM_MEMORIES, DecoderOutput, PixelDecoder, TwinStreamDecoder
from rrsis.encoders import EncoderOutput, FusedEncoder
from rrsis.losses import correlation_loss, segmentation_loss
from rrsis.reconstruction import DualModalReconstruction


@dataclass
class BTDNetOutput(ModelOutput):
    """What BTDNet returns.

    Attributes:
        loss: the weighted sum of all losses, a scalar; with labels only.
        logits: (B, h, w) joint logit z of the last layer, at 1/4 of the input (1/2 with `detail_dim`); above 0 is the
            referred object.
        target_logits: (B, h, w) z_t of the last layer.
        background_logits: (B, h, w) z_b of the last layer.
        layer_logits: z of every layer, first to last.
        correlation_maps: logits (B, h, w) of each stage's correlation map, fine to coarse.
        segmentation_loss: the part of the loss that the decoder answers for.
        correlation_loss: the correlation maps' part, before its weight.
        reconstruction_loss: D-MOLS's part, before its weight; in training only.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    target_logits: Tensor | None = None
    background_logits: Tensor | None = None
    layer_logits: tuple[Tensor, ...] | None = None
    correlation_maps: tuple[Tensor, ...] | None = None
    segmentation_loss: Tensor | None = None
    correlation_loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None


class BTDNetPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of BTDNet."""

    config_class = BTDNetConfig
    base_model_prefix = "btdnet"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _no_split_modules = ("SwinTransformerBlock", "BertLayer", "TwinStreamLayer")

    def _init_weights(self, module: nn.Module) -> None:
        # Every module draws its own weights when it is made. What is left are the buffers that timm does not save:
        # from_pretrained makes the model on the meta device, and they would stay empty.
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """As in transformers, with a model card (`rrsis.card`)."""
        # Not above: `python -m rrsis.card` imports this package, and Python warns of a module that comes twice.
        from rrsis.card import measured_figures, write_card

        # Before the weights are overwritten: their figures hold on if the new ones turn out to be the same.
        figures = measured_figures(save_directory, self.name_or_path) if is_main_process else {}
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process and Path(save_directory).is_dir():
            write_card(save_directory, self.config, figures)


class ReferringModel(BTDNetPreTrainedModel):
    """What all models of referring segmentation here share: an image and an expression in, a mask's logits out.

    A subclass is made from a `BTDNetConfig`, has an `encoder` and says how it predicts (`decode`) and what it is
    trained on (`add_losses`).
    """

    def decode(self, pixel_values: Tensor, encoded: EncoderOutput, token_mask: Tensor) -> tuple[BTDNetOutput, Any]:
        """Predicts from what the encoders made.

        Args:
            pixel_values: (B, 3, H, W), normalised images.
            encoded: what `encoder` made of images and expressions.
            token_mask: (B, L) bool, True for real tokens.

        Returns:
            The predictions, and whatever else the losses need.
        """
        raise NotImplementedError

    def add_losses(
        self, output: BTDNetOutput, context: Any, share: Tensor, token_mask: Tensor, noun_mask: Tensor | None
    ) -> None:
        """Sets `loss` and its parts.

        Args:
            output: from `decode`.
            context: from `decode`.
            share: (B, h, w) float, the object's share of each pixel, at 1/loss_stride of the image.
            token_mask: as in `decode`.
            noun_mask: (B, L) bool, the tokens of the object's noun, or None.
        """
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """The words' embeddings; accelerate asks for them to shard them on their own."""
        return self.encoder.text.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the words' embeddings."""
        self.encoder.text.set_input_embeddings(value)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        noun_mask: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BTDNetOutput | tuple[Any, ...]:
        """Segments what the expression refers to.

        Args:
            pixel_values: (B, 3, H, W), normalised images; H and W as in the configuration.
            input_ids: (B, L) token ids.
            attention_mask: (B, L), 1 for real tokens; all are real when it is not given.
            labels: (B, H, W), the mask: bool, or 0 and 1 of any dtype.
            noun_mask: (B, L) bool, the tokens of the object's noun, which D-MOLS hides in training.
            return_dict: False for a tuple.

        Returns:
            The predictions, and the losses when labels are given.

        Raises:
            ValueError: when batch sizes, the image's channels or its size do not fit; the message names the argument.
        """
        _check_inputs(pixel_values, input_ids, labels, self.config.pixel_map_stride)
        token_mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        output, context = self.decode(pixel_values, self.encoder(pixel_values, input_ids, token_mask), token_mask)
        if labels is not None:
            share = labels.to(pixel_values.dtype)
            if self.config.loss_stride > 1:
                share = F.avg_pool2d(share[:, None], self.config.loss_stride)[:, 0]
            self.add_losses(output, context, share, token_mask, noun_mask)
        return output if return_dict is not False else output.to_tuple()


class _Inside(NamedTuple):
    """What BTDNet's losses need besides the predictions."""

    decoded: DecoderOutput
    pyramid: list[Tensor]
    tokens: Tensor


class BTDNetForReferringSegmentation(ReferringModel):
    """Referring segmentation: an image and an expression in, the logits of the referred object's mask out.

    The published description of BTDNet (arXiv 2502.08486) fixes what BSC, T-BTD and D-MOLS do, not their equations;
    the equations here are this project's own reading (docs/architecture.md).

    Args:
        config: the architecture and the loss.
    """

    def __init__(self, config: BTDNetConfig) -> None:
        super().__init__(config)
        self.encoder = FusedEncoder(config)
        self._first_stage = 0 if config.pixel_map_stride == 4 else 1
        channels = self.encoder.channels
        self.pixel_decoder = PixelDecoder(channels[self._first_stage :], config.decoder_dim)
        self.decoder = TwinStreamDecoder(config, channels[0], self.encoder.token_dim)
        self.reconstruction = (
            DualModalReconstruction(config, self.encoder.token_dim) if config.use_reconstruction else None
        )
        self.post_init()

    def decode(self, pixel_values: Tensor, encoded: EncoderOutput, token_mask: Tensor) -> tuple[BTDNetOutput, Any]:
        """See `ReferringModel.decode`."""
        pyramid = self.pixel_decoder(encoded.features[self._first_stage :])
        decoded = self.decoder(pixel_values, encoded.features[0], pyramid, encoded.tokens, token_mask)
        joint = decoded.joint_logits()
        output = BTDNetOutput(
            logits=joint[-1],
            target_logits=decoded.target_logits[-1],
            background_logits=decoded.background_logits[-1],
            layer_logits=tuple(joint),
            correlation_maps=tuple(encoded.correlation_maps),
        )
        return output, _Inside(decoded, pyramid, encoded.tokens)

    def add_losses(
        self, output: BTDNetOutput, context: _Inside, share: Tensor, token_mask: Tensor, noun_mask: Tensor | None
    ) -> None:
        """See `ReferringModel.add_losses`."""
        output.segmentation_loss = segmentation_loss(context.decoded, share, self.config)
        output.loss = output.segmentation_loss
        if output.correlation_maps:
            output.correlation_loss = correlation_loss(list(output.correlation_maps), share)
            output.loss = output.loss + self.config.correlation_weight * output.correlation_loss
        if self.training and self.reconstruction is not None:
            # The memory at 1/8: fine enough for small objects, few enough pixels to hide.
            output.reconstruction_loss = self.reconstruction(
                context.pyramid[NUM_MEMORIES - 1], context.tokens, token_mask, share, noun_mask
            )
            output.loss = output.loss + self.config.reconstruction_weight * output.reconstruction_loss


def _check_inputs(pixel_values: Tensor, input_ids: Tensor, labels: Tensor | None, stride: int) -> None:
    if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
        raise ValueError(f"pixel_values must be (B, 3, H, W); got {tuple(pixel_values.shape)}")
    if pixel_values.shape[2] % stride or pixel_values.shape[3] % stride:
        raise ValueError(f"pixel_values must have sides that {stride} divides; got {tuple(pixel_values.shape)}")
    if input_ids.ndim != 2 or input_ids.shape[0] != pixel_values.shape[0]:
        raise ValueError(f"input_ids must be ({pixel_values.shape[0]}, L); got {tuple(input_ids.shape)}")
    if labels is not None and labels.shape != pixel_values.shape[:1] + pixel_values.shape[2:]:
        due = (pixel_values.shape[0], *pixel_values.shape[2:])
        raise ValueError(f"labels must be {due}, as pixel_values; got {tuple(labels.shape)}")
