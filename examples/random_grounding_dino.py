"""Writes a folder with a Grounding DINO of random weights, for trying `grounding_dino.py` where no weights are at hand.

    python examples/random_grounding_dino.py FOLDER --size full

It has the shapes of the real thing and detects nothing. Its configuration says so: ``"random_weights": true``.
"""

from __future__ import annotations

import argparse
import shutil
import string
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from rrsis.io import replace_folder

SIZES = ("full", "small")
"""transformers' defaults, by its documentation much like IDEA-Research/grounding-dino-tiny; one that runs at once."""

_BERT_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
"""The ids of bert-base-uncased that Grounding DINO has in its code: it separates phrases at them."""

_FIRST_LETTER = 1037
"""Where our letters start; each is a token."""


def write(folder: Path, size: str, seed: int = 0) -> None:
    """Writes weights, configuration, tokenizer and image processor, all or nothing.

    Args:
        folder: where to; must not exist.
        size: one of `SIZES`; "full" is 0.7 GB.
        seed: of the weights.

    Raises:
        ValueError: when there is no such size.
        FileExistsError: when the folder is there already.
    """
    if size not in SIZES:
        raise ValueError(f"size: got {size!r}, due is one of {', '.join(SIZES)}")
    if folder.exists():
        raise FileExistsError(f"folder: {folder} is there already, due is the name of a new one")
    config = transformers.GroundingDinoConfig(**small_options() if size == "small" else {})
    config.random_weights = True
    torch.manual_seed(seed)
    model = transformers.GroundingDinoForObjectDetection(config)
    _let_fusion_matter(model)
    longest = {"shortest_edge": 800, "longest_edge": 1333} if size == "full" else {"height": 96, "width": 128}
    processor = transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(size=longest), _tokenizer()
    )
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was cut off
    unfinished.mkdir(parents=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    replace_folder(unfinished, folder)


def small_options() -> dict[str, Any]:
    """What makes a configuration of the size "small"."""
    swin = transformers.SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_features=["stage2", "stage3", "stage4"]
    )
    bert = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    widths = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 12}
    return {"backbone_config": swin, "text_config": bert, **layers, **widths}


def _let_fusion_matter(model: nn.Module) -> None:
    """As initialised, the fusion has a gain of 1e-4 and boxes ignore it: any difference would be hidden."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("vision_param", "text_param")):
                parameter.fill_(1.0)
            elif "bbox_embed" in name and name.endswith("layers.2.weight"):
                parameter.normal_(std=1.0)


def _tokenizer() -> transformers.BertTokenizer:
    """Reads any text letter by letter; the ids that the model knows are where it looks for them."""
    letters = string.ascii_lowercase + string.digits
    pieces = [prefix + letter for prefix in ("", "##") for letter in letters]
    vocabulary = {**_BERT_IDS, **{piece: _FIRST_LETTER + place for place, piece in enumerate(pieces)}}
    taken = set(vocabulary.values())
    unused = {f"[unused{place}]": place for place in range(max(taken)) if place not in taken}
    return transformers.BertTokenizer(vocab={**vocabulary, **unused})


def main() -> None:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--size", choices=SIZES, default="full")
    arguments = parser.parse_args()
    try:
        write(arguments.folder, arguments.size)
    except FileExistsError as error:
        parser.error(str(error))
    print(f"{arguments.folder}: a {arguments.size} Grounding DINO with random weights; it detects nothing")


if __name__ == "__main__":
    main()
