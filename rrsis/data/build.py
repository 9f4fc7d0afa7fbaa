"""Data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .refsegrs import RefSegRS
from .risbench import RISBench
from .rrsisd import RRSISD
from .synthetic import SynthRRSIS
from .types import ReferringDataset, check_split

DATASETS: dict[str, Callable[..., ReferringDataset]] = {
    "synthetic": SynthRRSIS,
    "refsegrs": RefSegRS,
    "rrsisd": RRSISD,
    "risbench": RISBench,
}
"""Every data set by the name that the command line knows it by."""


def build_dataset(name: str, split: str, root: str | Path | None = None, **options: Any) -> ReferringDataset:
    """Builds one split of a data set.

    Args:
        name: "synthetic", "refsegrs", "rrsisd" or "risbench".
        split: "train", "val" or "test".
        root: Folder that the data set lies in; not for "synthetic".
        options: Whatever else the data set takes (SynthRRSIS: num_scenes, seed, config, cache).

    Raises:
        ValueError: Unknown name or split, a missing or surplus root, an option that the data set does not take.
        FileNotFoundError: A file of the data set is not there; the message names it.
    """
    check_split(split)
    if name not in DATASETS:
        raise ValueError(f"name: got {name!r}, due is one of {', '.join(sorted(DATASETS))}")
    dataset = DATASETS[name]
    known = [key for key in inspect.signature(dataset).parameters if key not in ("split", "root")]
    for option in options:
        if option not in known:
            raise ValueError(f"options: {name} takes {', '.join(known) or 'none'}, got {option!r}")
    if name == "synthetic":
        if root is not None:
            raise ValueError(f"root: got {str(root)!r}, but the synthetic data set is generated and lies nowhere")
        return dataset(split=split, **options)
    if root is None:
        raise ValueError(f"root: {name} is read from disk, give the folder that it lies in (--data_root)")
    return dataset(root=root, split=split, **options)
