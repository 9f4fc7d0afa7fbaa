"""The two encoders and Bidirectional Spatial Correlation after every stage of the image's."""

from __future__ import annotations

from typing import NamedTuple

import timm
import torch
from timm.models import checkpoint_seq
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rrsis.config import NUM_STAGES, BTDNetConfig
from rrsis.positions import sine_positions
from rrsis.staging import STRIDES, UnsuitedError, find_stages, is_channels_last
from rrsis_kernels import nn as kernel_nn


def make_timm_model(name: str, image_size: int | None = None, **kwargs: object) -> nn.Module:
    """A timm model with random weights and without a classifier.

    Args:
        name: its name in timm.
        image_size: side of the images, for models that are made for one size; `img_size` among `kwargs` goes before.
        **kwargs: arguments of `timm.create_model`.

    Raises:
        ValueError: when timm has no such model, or it does not take the arguments.
    """
    if not timm.is_model(name):  # timm itself would look for it elsewhere, on the network too
        raise ValueError(f"backbone must be the name of a timm model (timm.list_models() has them all); got {name!r}")
    try:
        if image_size is not None and timm.models.get_pretrained_cfg(name).fixed_input_size:
            kwargs = {"img_size": image_size, **kwargs}
        return timm.create_model(name, pretrained=False, num_classes=0, **kwargs)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ValueError(f"backbone {name} cannot be made with backbone_kwargs {kwargs}: {error}") from error


CORRELATION_HEAD = 0
"""The head of BSC whose `pixel_lse` is the correlation map. Were it the mean over heads, the map's loss would draw
every word to the referred object, and "left of the bridge" needs one that finds the bridge."""


class StagedBackbone(nn.Module):
    """A timm backbone that runs stage by stage, so that words can enter between the stages.

    Any model will do whose features at 1/4, 1/8, 1/16 and 1/32 of the image are each made of the one before alone
    (`rrsis.staging`). Features pass as (B, h, w, C) whatever the model's own layout.

    Args:
        name: name of a timm model, or one that is made already, which is taken apart.
        image_size: side of the images, for models that are made for one size.
        **kwargs: arguments of `timm.create_model`.

    Raises:
        ValueError: when timm cannot make the model, or it has no four stages that run one after the other.
    """

    def __init__(self, name: str | nn.Module, image_size: int | None = None, **kwargs: object) -> None:
        super().__init__()
        model = name if isinstance(name, nn.Module) else make_timm_model(name, image_size, **kwargs)
        try:
            found = find_stages(model, image_size)
            if any(width % 4 for width in found.channels):  # `sine_positions`
                raise UnsuitedError(f"its stages have {found.channels} channels, due are multiples of 4")
        except UnsuitedError as error:
            called = name if isinstance(name, str) else type(name).__name__
            places = ", ".join(f"1/{stride}" for stride in STRIDES)
            raise ValueError(
                f"backbone must be a timm model with four stages, at {places} of the image, that run one after the "
                f"other, as those of Swin, ConvNeXt and ResNet do; got {called!r}: {error}"
            ) from error
        self.stem = _joined(model, found.stem)
        self.stages = nn.ModuleList(_joined(model, names) for names in found.stages)
        self.channels_last = is_channels_last(model)
        self.channels = found.channels
        self._checkpointing = False

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the backward pass computes each block's activations anew; transformers sets it."""
        return self._checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        self._checkpointing = enable
        for module in self.stages.modules():
            if hasattr(module, "grad_checkpointing"):  # timm's own switch, block by block
                module.grad_checkpointing = enable

    def accept_any_size(self) -> None:
        """Lets a Swin take images of other sizes than it was made for; convolutional models always do.

        Windows and shifts stay, so that images of its own size give what they gave before.
        """
        if hasattr(self.stem, "strict_img_size"):
            self.stem.strict_img_size = False
        for module in self.stages.modules():
            if hasattr(module, "dynamic_mask"):
                module.dynamic_mask = True

    def embed(self, images: Tensor) -> Tensor:
        """Runs what comes before the first stage. images (B, 3, H, W) → (B, h, w, C).

        Raises:
            ValueError: when the model takes images of one size only, and these have another.
        """
        size = getattr(self.stem, "img_size", None)
        if getattr(self.stem, "strict_img_size", False) and tuple(images.shape[2:]) != tuple(size):
            raise ValueError(
                f"pixel_values must be (B, 3, {size[0]}, {size[1]}), which this model was made for; got "
                f"{tuple(images.shape)}. StagedBackbone.accept_any_size lets it take others"
            )
        return self._to_channels_last(self.stem(images))

    def run_stage(self, index: int, features: Tensor) -> Tensor:
        """Runs one stage. (B, h, w, C) → (B, h', w', C')."""
        stage = self.stages[index]
        if not self.channels_last:
            features = features.permute(0, 3, 1, 2)
        features = self._run(stage, features)
        return self._to_channels_last(features)

    def _run(self, stage: nn.Module, features: Tensor) -> Tensor:
        switched = any(hasattr(module, "grad_checkpointing") for module in stage.modules())
        # A module on its own that overwrites its input could not run again.
        overwrites = [getattr(module, "inplace", False) for module in (stage, *stage.children())]
        if not self._checkpointing or switched or overwrites[0]:
            return stage(features)
        if isinstance(stage, nn.Sequential) and not any(overwrites):  # as ResNets', which have no such switch
            return checkpoint_seq(stage, features)
        return checkpoint(stage, features, use_reentrant=False)

    def _to_channels_last(self, features: Tensor) -> Tensor:
        return features if self.channels_last else features.permute(0, 2, 3, 1)


def _joined(model: nn.Module, names: list[str]) -> nn.Module:
    """One module that runs the named ones in turn; a single one stays itself, with the names of its weights."""
    modules = [model.get_submodule(name) for name in names]
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


class CorrelationStage(GradientCheckpointingLayer):
    """BSC after one stage: V ← V + γ_v·norm(paint), T ← T + γ_t·norm(W pool) (this project's reading).

    Args:
        pixel_dim: channels C of the stage.
        token_dim: channels of the words.
        config: the model's configuration.
        index: which stage.
    """

    def __init__(self, pixel_dim: int, token_dim: int, config: BTDNetConfig, index: int) -> None:
        super().__init__()
        pools = config.use_bsc_pool and index >= config.bsc_pool_from
        self.pixel_norm = nn.LayerNorm(pixel_dim)
        self.token_norm = nn.LayerNorm(token_dim)
        self.correlation = kernel_nn.BidirectionalSpatialCorrelation(
            pixel_dim,
            token_dim,
            config.bsc_embed_dims[index],
            config.bsc_num_heads[index],
            order=config.bsc_order,
            direction="both" if pools else "paint",
        )
        self.painted_norm = nn.LayerNorm(pixel_dim)
        self.pixel_gain = nn.Parameter(torch.full((pixel_dim,), config.bsc_gain))
        if pools:
            self.pooled_norm = nn.LayerNorm(token_dim)
            self.token_gain = nn.Parameter(torch.full((token_dim,), config.bsc_gain))
        # The correlation map's scale and offset; at the start most of an image is not the object.
        self.map_scale = nn.Parameter(torch.ones(1))  # FSDP2 shards no scalars
        self.map_bias = nn.Parameter(torch.full((1,), -4.0))

    def forward(self, features: Tensor, tokens: Tensor, token_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Aligns both modalities.

        Args:
            features: (B, h, w, C).
            tokens: (B, L, token_dim).
            token_mask: (B, L) bool, True for real tokens.

        Returns:
            The fused features, the fused tokens, and the logits of the correlation map (B, h, w).
        """
        batch, height, width, channels = features.shape
        pixels = features.reshape(batch, height * width, channels)
        query = self.pixel_norm(pixels)
        query = query + sine_positions(height, width, channels, query)
        out = self.correlation(query, self.token_norm(tokens), token_mask=token_mask)
        pixels = pixels + self.pixel_gain * self.painted_norm(out.painted)
        if out.pooled is not None:
            tokens = tokens + self.token_gain * self.pooled_norm(out.pooled)
        correlation = self.map_scale * out.pixel_lse[:, CORRELATION_HEAD] + self.map_bias
        return pixels.view_as(features), tokens, correlation.view(batch, height, width)


class EncoderOutput(NamedTuple):
    """What the encoders hand on.

    Attributes:
        features: the four stages' fused features, (B, h, w, C) each, fine to coarse.
        tokens: the words after all stages, (B, L, token_dim).
        correlation_maps: logits (B, h, w) of each stage; empty without BSC.
    """

    features: list[Tensor]
    tokens: Tensor
    correlation_maps: list[Tensor]


class FusedEncoder(nn.Module):
    """Image and text encoder, joined by BSC after every stage.

    The fused pixels of a stage feed the next one, and the same words walk through all stages, so that they carry
    evidence from scale to scale.
    """

    def __init__(self, config: BTDNetConfig) -> None:
        super().__init__()
        self.image = StagedBackbone(config.backbone, config.image_size, **config.backbone_kwargs)
        self.text = BertModel(config.text_config, add_pooling_layer=False)
        self.channels = self.image.channels
        self.token_dim = config.text_config.hidden_size
        self.fusions = nn.ModuleList(
            CorrelationStage(channels, self.token_dim, config, index)
            for index, channels in enumerate(self.channels if config.use_bsc else [])
        )

    def words(self, input_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Encodes token ids (B, L) with their mask (B, L) bool, before they meet an image → (B, L, token_dim)."""
        return self.text(input_ids=input_ids, attention_mask=token_mask.long()).last_hidden_state

    def before_words(self, pixel_values: Tensor) -> list[Tensor]:
        """What no word has touched yet of images (B, 3, H, W), and which therefore serves every expression.

        Returns:
            The first stage's features, (B, h, w, C); all four stages' where nothing is fused.
        """
        state, features = self.image.embed(pixel_values), []
        for index in range(1 if self.fusions else NUM_STAGES):
            state = self.image.run_stage(index, state)
            features.append(state)
        return features

    def join(self, unfused: list[Tensor], tokens: Tensor, token_mask: Tensor) -> EncoderOutput:
        """Joins what `before_words` and `words` returned, and runs the rest of the image encoder.

        Args:
            unfused: from `before_words`.
            tokens: from `words`, (B, L, token_dim).
            token_mask: (B, L) bool.
        """
        if not self.fusions:
            return EncoderOutput(unfused, tokens, [])
        state, features, maps = unfused[0], [], []
        for index, fusion in enumerate(self.fusions):
            if index > 0:
                state = self.image.run_stage(index, state)
            state, tokens, correlation = fusion(state, tokens, token_mask)
            maps.append(correlation)
            features.append(state)
        return EncoderOutput(features, tokens, maps)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, token_mask: Tensor) -> EncoderOutput:
        """Encodes images (B, 3, H, W) and token ids (B, L) with their mask (B, L) bool."""
        tokens = self.words(input_ids, token_mask)
        return self.join(self.before_words(pixel_values), tokens, token_mask)
