"""The configuration of BTDNet and its presets."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig, configuration_utils
from transformers.configuration_utils import PreTrainedConfig

NUM_STAGES = 4
"""How many stages the backbone has; BSC runs after each one."""

ARCHITECTURES = {"btdnet": "BTDNetForReferringSegmentation", "lavt": "LAVTForReferringSegmentation"}
"""What can be trained, the model and the baseline that it is compared with, and the class of each."""


class BTDNetConfig(PreTrainedConfig):
    """Everything that fixes the architecture and the loss of BTDNet.

    Attributes:
        architecture: "btdnet", or "lavt" for the baseline of `rrsis.lavt`, which has none of BTDNet's three parts.
        lavt_positions: let the baseline's pixels ask the words with their place in the image, as BTDNet's do.
        image_size: side of the square input, in pixels.
        backbone: name of a timm model with four stages (`rrsis.encoders.StagedBackbone` says which will do).
        backbone_kwargs: further arguments of `timm.create_model` (depths, widths, …). `img_size` is `image_size` unless
            it is given, for the models that are made for one size.
        text_config: a `transformers.BertConfig`, or its arguments.
        max_tokens: longest expression, in tokens, [CLS] and [SEP] included; longer ones are cut.
        bsc_num_heads: heads of BSC at each stage.
        bsc_embed_dims: width E of BSC's shared space at each stage.
        bsc_order: order in which BSC multiplies: "auto", "absorbed" or "projected".
        bsc_gain: start of the per-channel gains γ of the fused features.
        bsc_pool_from: the first stage, 0 to 3, after which words pool from the pixels; before it BSC only paints.
        decoder_dim: channels of the pixel decoder and of the queries.
        decoder_layers: layers of the twin-stream decoder; they cycle through 1/32, 1/16, 1/8.
        decoder_heads: attention heads in the decoder.
        decoder_ffn_dim: hidden width of the decoder's feed-forward parts.
        num_queries: queries K per stream.
        pixel_map_stride: the decoder's pixel map lies at 1/4 or at 1/8 of the image. At 1/8 a layer costs a quarter,
            and the first stage's features join at the prediction, which then needs `detail_dim`.
        detail_dim: channels of what is known at 1/2 of the image, where the masks are then predicted; 0 predicts them
            at the pixel map's size.
        gate_clamp: largest magnitude of the gate's logit; the gate of a cell of the memory is the mean probability of
            its area.
        detach_gate: stop the gradient at the gate.
        use_bsc: fuse the modalities in the encoder (off: the words reach the pixels in the decoder only).
        use_bsc_pool: let BSC's pool direction update the words.
        use_twin_stream: decode the background beside the target (off: the target alone).
        use_gate: let each layer's joint prediction gate the next layer's attention.
        use_reconstruction: train with D-MOLS.
        loss_stride: supervise at 1/loss_stride of the input size; 1 or 2.
        joint_weight: weight of BCE(z).
        target_weight: weight of BCE(z_t).
        background_weight: weight of BCE(z_b) against the complement.
        dice_weight: weight of Dice(y).
        correlation_weight: λ_c, weight of the correlation maps' BCE.
        reconstruction_weight: λ_r, weight of D-MOLS.
        pixel_mask_ratio: share of the background pixels that D-MOLS hides.
        object_mask_ratio: share of the object's pixels that D-MOLS hides.
        word_mask_ratio: share of the words that D-MOLS hides.

    Raises:
        ValueError: when two values contradict each other; the message names them.
    """

    model_type = "btdnet"
    # The new name is of transformers 5.19 or 5.20, whose first versions took specifications alone.
    if hasattr(configuration_utils, "SubConfigSpec"):
        sub_configs_defaults = {"text_config": configuration_utils.SubConfigSpec(BertConfig)}
    else:
        sub_configs = {"text_config": BertConfig}

    architecture: str = "btdnet"
    lavt_positions: bool = False
    image_size: int = 480
    backbone: str = "swin_base_patch4_window12_384"
    backbone_kwargs: dict | None = None
    text_config: dict | PreTrainedConfig | None = None
    max_tokens: int = 22

    bsc_num_heads: list | tuple = (4, 8, 16, 32)
    bsc_embed_dims: list | tuple = (128, 256, 512, 1024)
    bsc_order: str = "auto"
    bsc_gain: float = 0.1
    bsc_pool_from: int = 0

    decoder_dim: int = 256
    decoder_layers: int = 6
    decoder_heads: int = 8
    decoder_ffn_dim: int = 1024
    num_queries: int = 8
    pixel_map_stride: int = 4
    detail_dim: int = 0
    gate_clamp: float = 6.0
    detach_gate: bool = True

    use_bsc: bool = True
    use_bsc_pool: bool = True
    use_twin_stream: bool = True
    use_gate: bool = True
    use_reconstruction: bool = True

    loss_stride: int = 2
    joint_weight: float = 2.0
    target_weight: float = 2.0
    background_weight: float = 2.0
    dice_weight: float = 1.0
    correlation_weight: float = 0.5
    reconstruction_weight: float = 0.2
    pixel_mask_ratio: float = 0.25
    object_mask_ratio: float = 0.5
    word_mask_ratio: float = 0.25

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills in what was left open, then checks that the values fit each other."""
        if not isinstance(self.text_config, PreTrainedConfig):  # newer transformers do it in __post_init__
            self.text_config = BertConfig(**(self.text_config or {}))
        super().__post_init__(**kwargs)
        self.backbone_kwargs = dict(self.backbone_kwargs or {})
        if self.architectures is None and self.architecture in ARCHITECTURES:
            # Both models share this configuration: transformers' Auto classes tell them apart by the class's name.
            self.architectures = [ARCHITECTURES[self.architecture]]
        if self.architecture == "lavt":
            self.use_bsc = self.use_bsc_pool = self.use_twin_stream = self.use_gate = self.use_reconstruction = False
        self._check()

    def _check(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {tuple(ARCHITECTURES)}; got {self.architecture!r}")
        for name in ("bsc_num_heads", "bsc_embed_dims"):
            if len(getattr(self, name)) != NUM_STAGES:
                raise ValueError(f"{name} must have {NUM_STAGES} entries, one a stage; got {getattr(self, name)}")
        for heads, width in zip(self.bsc_num_heads, self.bsc_embed_dims, strict=True):
            if width % heads:
                raise ValueError(f"bsc_embed_dims must be divisible by bsc_num_heads; got {width} and {heads}")
        if self.bsc_pool_from not in range(NUM_STAGES):
            raise ValueError(f"bsc_pool_from must be a stage, 0 to {NUM_STAGES - 1}; got {self.bsc_pool_from}")
        if self.decoder_dim % self.decoder_heads or self.decoder_dim % 4:
            raise ValueError(
                f"decoder_dim must be divisible by 4 and by decoder_heads={self.decoder_heads}; got {self.decoder_dim}"
            )
        if self.pixel_map_stride not in (4, 8):
            raise ValueError(f"pixel_map_stride must be 4 or 8; got {self.pixel_map_stride}")
        if self.pixel_map_stride == 8 and not self.detail_dim:
            raise ValueError("pixel_map_stride=8 needs detail_dim: masks predicted at 1/8 lose small objects; got 0")
        if self.loss_stride not in (1, 2):
            raise ValueError(f"loss_stride must be 1 or 2; got {self.loss_stride}")
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32; got {self.image_size}")


def _tiny(**overrides: Any) -> BTDNetConfig:
    return BTDNetConfig(
        **{
            "image_size": 128,
            "backbone": "swin_tiny_patch4_window7_224",
            "backbone_kwargs": {
                "img_size": 128,
                "embed_dim": 32,
                "depths": [1, 1, 2, 1],
                "num_heads": [1, 2, 4, 8],
                "window_size": 4,
                "drop_path_rate": 0.0,
            },
            "text_config": {
                "hidden_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 192,
                "max_position_embeddings": 64,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            "max_tokens": 24,
            "bsc_num_heads": [4, 4, 4, 4],
            "bsc_embed_dims": [64, 64, 64, 64],
            # Nothing here is pretrained that a large start could upset: 2 to 3 points of mIoU over 0.1.
            "bsc_gain": 0.5,
            # One or two blocks recognise nothing yet; pooled from there, words take up noise: 1.2 points of mIoU.
            "bsc_pool_from": 2,
            "decoder_dim": 64,
            "decoder_layers": 3,
            "decoder_heads": 4,
            "decoder_ffn_dim": 128,
            "num_queries": 4,
            "pixel_map_stride": 8,
            "detail_dim": 16,
            "loss_stride": 1,
            **overrides,
        }
    )


def _base(**overrides: Any) -> BTDNetConfig:
    return BTDNetConfig(**{"backbone_kwargs": {"img_size": 480}, **overrides})


PRESETS = {"tiny": _tiny, "base": _base}


def make_config(preset: str, **overrides: Any) -> BTDNetConfig:
    """Makes the configuration of a preset.

    Args:
        preset: "tiny" (128², learns from scratch on a CPU) or "base" (Swin-B 384/22k and BERT-base at 480²).
        **overrides: fields of `BTDNetConfig` to set differently. Another `backbone` starts without `backbone_kwargs`:
            the preset's are its own backbone's.

    Returns:
        The configuration.

    Raises:
        ValueError: when there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}; got {preset!r}")
    if "backbone" in overrides:
        overrides = {"backbone_kwargs": {}, **overrides}
    return PRESETS[preset](**overrides)
