"""The model card, README.md beside the weights: ``python -m rrsis.card RUN`` writes it anew after an evaluation.

`save_pretrained` writes it too. A figure stands in it only if it was measured on these very weights: those of a
metrics.json that is younger than the weights that it lies beside, as long as these stay the same byte for byte.
A README.md that a person wrote is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrsis.checkpoints import MANIFEST
from rrsis.config import BTDNetConfig
from rrsis.io import atomic_write

MARK = "<!-- written by rrsis.card; without this line it is left as it is -->"
"""Tells a card of ours from a README.md that someone wrote."""

WEIGHTS = "model.safetensors"
COLUMNS = ("oIoU", "mIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")

_NAMES = {"btdnet": "BTDNet", "lavt": "LAVT-style baseline"}

_NOTHING = (
    "Nothing yet on these weights: `python -m rrsis.evaluate` measures, and `python -m rrsis.card` then writes it here."
)

_TEMPLATE = """---
library_name: transformers
pipeline_tag: image-segmentation
tags:
- referring-segmentation
- remote-sensing
- rrsis
---
{mark}

# {name} for referring remote sensing image segmentation

An aerial image and an expression in, the mask of the object that is meant out. {reading}

## Use

```python
import rrsis  # makes its classes known to transformers
from transformers import pipeline

segment = pipeline("referring-segmentation", model="{folder}")
segment("scene.png", "the red ship")["mask"].save("mask.png")
```

## What it is

{architecture}

## What was measured

{figures}
"""

_READING = {
    "btdnet": "The three parts are those of BTDNet (arXiv 2502.08486); their equations are this implementation's own "
    "reading, and none of that publication's figures is claimed.",
    "lavt": "Written from the equations of LAVT (arXiv 2112.02244); none of that publication's figures is claimed.",
}


def measured_figures(*folders: str | os.PathLike[str]) -> dict[str, list[dict[str, Any]]]:
    """What was measured on the weights of each folder: by training (metrics.json) and by `rrsis.evaluate`.

    Args:
        *folders: folders of models; those that are not there have no figures.

    Returns:
        The contents of the metrics.json files by the SHA-256 of the weights that they were measured on.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in map(Path, folders):
        weights = folder / WEIGHTS
        files = [folder / "metrics.json", *sorted(folder.glob("evaluation-*/metrics.json"))]
        if not weights.is_file() or not any(file.is_file() for file in files):
            continue
        # Older figures belong to weights that have been overwritten since.
        young = [file for file in files if file.is_file() and file.stat().st_mtime >= weights.stat().st_mtime]
        found[_digest(weights)] = [metrics for metrics in map(_read, young) if metrics]
    return found


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def write_card(
    folder: str | os.PathLike[str],
    config: BTDNetConfig,
    figures: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> bool:
    """Writes README.md, unless there is one that is not ours.

    Args:
        folder: a model's folder.
        config: the model's.
        figures: of `measured_figures`; those of other weights are left out. By default the folder's own.

    Returns:
        Whether it was written.
    """
    path = Path(folder) / "README.md"
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return False
    figures = measured_figures(folder) if figures is None else figures
    weights = Path(folder) / WEIGHTS
    measured = figures.get(_digest(weights), []) if figures and weights.is_file() else []
    text = _TEMPLATE.format(
        mark=MARK,
        name=_NAMES[config.architecture],
        reading=_READING[config.architecture],
        folder=Path(folder).resolve().name,
        architecture=_describe(config),
        figures="\n\n".join(map(_tabulate, measured)) or _NOTHING,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _describe(config: BTDNetConfig) -> str:
    text = config.text_config
    rows = {
        "input": f"{config.image_size} × {config.image_size} pixels, at most {config.max_tokens} tokens",
        "image encoder": f"`{config.backbone}` (timm)" + (", changed in its size" if config.backbone_kwargs else ""),
        "text encoder": f"BERT, {text.num_hidden_layers} layers of {text.hidden_size}, {text.vocab_size} tokens known",
    }
    if config.architecture == "btdnet":
        parts = {
            "bidirectional spatial correlation": config.use_bsc,
            "twin-stream decoder": config.use_twin_stream,
            "gate": config.use_gate,
            "dual-modal reconstruction (in training)": config.use_reconstruction,
        }
        rows["parts"] = ", ".join(f"{name}: {'on' if used else 'off'}" for name, used in parts.items())
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _tabulate(metrics: Mapping[str, Any]) -> str:
    """The overall figures, each beside its protocol, and where they come from."""
    dataset = f"{metrics.get('dataset')}, split {metrics.get('split')}"
    lines = [
        f"In per cent, on {dataset}, {metrics.get('num_expressions')} expressions. Figures under different protocols "
        "are not comparable.",
        "",
        f"| protocol | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for protocol, scores in metrics.get("protocols", {}).items():
        overall = scores.get("overall", {})
        cells = [f"{100 * overall[name]:.2f}" if name in overall else "" for name in COLUMNS]
        lines.append(f"| `{protocol}` | {' | '.join(cells)} |")
    facts = {name: metrics[name] for name in ("seed", "steps", "commit") if metrics.get(name) is not None}
    if facts:
        lines += ["", ", ".join(f"{name} {value}" for name, value in facts.items()) + "."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status (2 for bad input)."""
    parser = argparse.ArgumentParser(prog="python -m rrsis.card", description="Writes a run folder's model card.")
    parser.add_argument("run", type=Path, help="run folder of rrsis.train")
    folder = parser.parse_args(argv).run
    if not (folder / "config.json").is_file():
        print(f"error: run: {str(folder)!r} holds no config.json", file=sys.stderr)
        return 2
    if (folder / MANIFEST).exists():
        print(
            f"error: run: {str(folder)!r} is a sealed checkpoint; changed, it would pass for damaged", file=sys.stderr
        )
        return 2
    if not write_card(folder, BTDNetConfig.from_pretrained(folder)):
        print(f"error: {folder / 'README.md'} was not written by rrsis.card; it is left alone", file=sys.stderr)
        return 2
    print(f"wrote {folder / 'README.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
