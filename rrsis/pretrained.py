"""Weights that are at hand: a timm backbone from a file, a BERT from a folder. Nothing is ever downloaded."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase

from rrsis.config import BTDNetConfig
from rrsis.encoders import StagedBackbone, make_timm_model

WEIGHT_FOLDERS = (Path("pretrained_weights"), Path("."))
"""Where weights are looked for first, seen from the working folder; the libraries' caches come after."""

BACKBONE_TAGS = {"swin_base_patch4_window12_384": "ms_in22k"}
"""Which of timm's trainings a backbone starts from where it is not timm's own default."""

TEXT_MODEL = "bert-base-uncased"
"""The BERT that is looked for when none is given."""

TEXT_FILES = (("config.json",), ("model.safetensors", "pytorch_model.bin"), ("tokenizer.json", "vocab.txt"))
"""What a BERT's folder must hold: one of each group."""

UNUSED = ("head.", "fc.", "classifier.", "norm.")
"""How the parameters of a classification model begin that come after its stages."""


class MissingWeightsError(ValueError):
    """Pretrained weights are nowhere; the message says which, where they were looked for, and what to do."""


def find_weights(config: BTDNetConfig, text_model: str | None, backbone_weights: str | None) -> tuple[str, str]:
    """Finds what a pretrained model starts from, where it is not given.

    Args:
        config: the model's configuration.
        text_model: a folder with a BERT, or None to look for one.
        backbone_weights: a file, or None to look for one.

    Returns:
        Folder of the BERT and file of the backbone.

    Raises:
        MissingWeightsError: something is nowhere; where both are, the message speaks of both.
    """
    faults = []
    try:
        text_model = text_model or find_text_model()
    except MissingWeightsError as error:
        faults.append(str(error))
    try:
        backbone_weights = backbone_weights or find_backbone_weights(config)
    except MissingWeightsError as error:
        faults.append(str(error))
    if faults:
        raise MissingWeightsError("\n".join([*faults, "To start from random weights instead, add --from_scratch."]))
    return text_model, backbone_weights


def find_backbone_weights(config: BTDNetConfig) -> str:
    """Finds the file with a backbone's pretrained weights.

    Looked for are, in this order: the original file and `NAME.TAG.safetensors` in `WEIGHT_FOLDERS`, the original file
    in torch's hub cache, and timm's repository in the Hugging Face cache.

    Raises:
        MissingWeightsError: it is in none of these places.
    """
    name = (
        config.backbone
        if "." in config.backbone
        else ".".join(part for part in (config.backbone, BACKBONE_TAGS.get(config.backbone)) if part)
    )
    source = timm.models.get_pretrained_cfg(name)
    url, repository = (source.url, source.hf_hub_id) if source is not None else (None, None)
    names = [Path(url).name] if url else []
    places = [folder / file for folder in WEIGHT_FOLDERS for file in (*names, f"{name}.safetensors")]
    places += [Path(torch.hub.get_dir()) / "checkpoints" / file for file in names]
    for place in places:
        if place.is_file():
            return str(place)
    for file in ("model.safetensors", "pytorch_model.bin") if repository else ():
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return cached
    raise MissingWeightsError(
        _missing(
            f"weights of the backbone {name}",
            [*places, *_cache_places([repository] if repository else [])],
            [f"download {url}" if url else "", f"run `hf download {repository}`" if repository else ""],
            "--backbone_weights FILE (.safetensors or .pth)",
        )
    )


def find_text_model() -> str:
    """Finds the folder of `TEXT_MODEL`, with its tokenizer.

    Looked for are a folder of that name in `WEIGHT_FOLDERS`, then its repository in the Hugging Face cache.

    Raises:
        MissingWeightsError: it is in none of these places, or not whole.
    """
    places = [folder / TEXT_MODEL for folder in WEIGHT_FOLDERS]
    repositories = [f"google-bert/{TEXT_MODEL}", TEXT_MODEL]
    cached = [try_to_load_from_cache(repository, "config.json") for repository in repositories]
    for folder in [*places, *(Path(path).parent for path in cached if isinstance(path, str))]:
        if not _lacking(folder):
            return str(folder)
    raise MissingWeightsError(
        _missing(
            f"{TEXT_MODEL} and its tokenizer ({', '.join(' or '.join(group) for group in TEXT_FILES)})",
            [*places, *_cache_places(repositories)],
            [f"run `hf download {repositories[0]} --local-dir {places[0]}`"],
            "--text_model FOLDER",
        )
    )


def _missing(what: str, places: Iterable[Path | str], ways: Iterable[str], option: str) -> str:
    return (
        f"{what}: not found. Looked for in {', '.join(str(place) for place in places)}. "
        f"To get it, {' or '.join(way for way in ways if way)} where there is a network, and give it as {option} or "
        "put it in one of these places."
    )


def _cache_places(repositories: Iterable[str]) -> list[Path]:
    cache = Path(constants.HF_HUB_CACHE)
    return [cache / f"models--{repository.replace('/', '--')}" for repository in repositories]


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """Loads a fast tokenizer from a local folder.

    Raises:
        ValueError: when there is no such folder, or not with all that it must hold.
    """
    return AutoTokenizer.from_pretrained(_text_folder(folder), use_fast=True, local_files_only=True)


def load_text_model(folder: str) -> BertModel:
    """Loads a BERT, without its pooler, from a local folder.

    Raises:
        ValueError: when there is no such folder, or not with all that it must hold.
    """
    return BertModel.from_pretrained(_text_folder(folder), add_pooling_layer=False, local_files_only=True)


def load_backbone_weights(backbone: StagedBackbone, config: BTDNetConfig, path: str) -> None:
    """Loads pretrained weights into a backbone.

    timm's own converter reads the files' original layout too and resizes what depends on the size of the image, as
    Swin's tables of relative positions. A classifier is passed over; anything else must fit.

    Args:
        backbone: the backbone to fill.
        config: its configuration.
        path: a .safetensors or .pth file; the latter is read without running what it may contain.

    Raises:
        ValueError: when there is no such file, it cannot be read, or it holds another model's weights.
    """
    if not Path(path).is_file():
        raise ValueError(f"backbone_weights must be a file with timm weights; got {path}")
    donor = make_timm_model(config.backbone, config.image_size, **config.backbone_kwargs)
    weights = _converted(_read_weights(path), donor, path)
    weights = {name: value for name, value in weights.items() if not name.startswith(UNUSED)}
    _require_fit(weights, donor, f"backbone_weights {path} does not fit {config.backbone}")
    donor.load_state_dict(weights, strict=False)
    backbone.load_state_dict(StagedBackbone(donor).state_dict())


def _read_weights(path: str) -> Mapping[str, Tensor]:
    try:
        return timm.models.load_state_dict(path, weights_only=True)
    except (RuntimeError, SafetensorError, EOFError, AttributeError) as error:
        raise ValueError(f"backbone_weights {path} cannot be read as weights: {error}") from error


def _converted(weights: Mapping[str, Tensor], donor: nn.Module, path: str) -> Mapping[str, Tensor]:
    convert = getattr(sys.modules[type(donor).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return weights
    try:
        return convert(dict(weights), donor)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        # The converter asks the model for the layers that the file names.
        raise ValueError(f"backbone_weights {path} does not fit {type(donor).__name__}: {error}") from error


def _require_fit(weights: Mapping[str, Tensor], model: nn.Module, complaint: str) -> None:
    due = {name: value for name, value in model.state_dict().items() if not name.startswith(UNUSED)}
    faults = [f"it lacks {name}" for name in due if name not in weights]
    faults += [f"it holds {name}, which is not there" for name in weights if name not in due]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, due is {tuple(due[name].shape)}"
        for name in due
        if name in weights and weights[name].shape != due[name].shape
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ValueError(f"{complaint}: {faults[0]}{more}")


def _text_folder(folder: str) -> str:
    if not Path(folder).is_dir():
        raise ValueError(f"text_model must be a folder with a BERT and its tokenizer; got {folder}")
    if lacking := _lacking(Path(folder)):
        raise ValueError(f"text_model must hold a BERT and its tokenizer; {folder} lacks {', '.join(lacking)}")
    return folder


def _lacking(folder: Path) -> list[str]:
    return [" or ".join(group) for group in TEXT_FILES if not any((folder / name).is_file() for name in group)]
