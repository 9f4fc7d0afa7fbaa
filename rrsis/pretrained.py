"""Weights that are at hand: a timm backbone from a file, a BERT and its tokenizer from a folder."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase

from rrsis.config import BTDNetConfig
from rrsis.encoders import StagedBackbone


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """Loads a fast tokenizer from a local folder.

    Raises:
        ValueError: when there is no such folder.
    """
    return AutoTokenizer.from_pretrained(_local_folder(folder), use_fast=True, local_files_only=True)


def load_text_model(folder: str) -> BertModel:
    """Loads a BERT, without its pooler, from a local folder.

    Raises:
        ValueError: when there is no such folder.
    """
    return BertModel.from_pretrained(_local_folder(folder), add_pooling_layer=False, local_files_only=True)


def load_backbone_weights(backbone: StagedBackbone, config: BTDNetConfig, path: str) -> None:
    """Loads timm weights into a backbone; timm resizes what depends on the image size.

    Args:
        backbone: the backbone to fill.
        config: its configuration.
        path: a .safetensors or .pth file; the latter is read without running what it may contain.

    Raises:
        ValueError: when there is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"backbone_weights must be a file with timm weights; got {path}")
    donor = StagedBackbone(config.backbone, checkpoint_path=path, **config.backbone_kwargs)
    backbone.load_state_dict(donor.state_dict())


def _local_folder(folder: str) -> str:
    if not Path(folder).is_dir():
        raise ValueError(f"text_model must be a folder with a BERT and its tokenizer; got {folder}")
    return folder
