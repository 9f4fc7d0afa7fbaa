"""How large a program's tile is and how many warps work on it: a small table per architecture, or measured once.

By default nothing is measured: a user's first call is no time to run benchmarks. `RRSIS_KERNELS_AUTOTUNE=1` times the
candidates at the first call of each kernel and shape, and keeps the winners in a file
(`RRSIS_KERNELS_AUTOTUNE_CACHE`, else ~/.cache/rrsis_kernels/autotune.json).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import triton

from rrsis_kernels.triton import INTERPRETED, _config

CACHE_VARIABLE = "RRSIS_KERNELS_AUTOTUNE_CACHE"
INTERPRETED_FACTOR = 8
"""How much larger tiles are in the interpreter."""


class Config(NamedTuple):
    """Size of a program.

    Attributes:
        elements: of its tile; what they are is said at the table.
        num_warps: that share them.
    """

    elements: int
    num_warps: int


def architecture(device: torch.device) -> int:
    """The compute capability as one number (90 for 9.0); in the interpreter that of the table's middle entry."""
    return 90 if INTERPRETED else _capability(device.index or 0)


@functools.cache
def _capability(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


def from_table(table: dict[int, Config], arch: int) -> Config:
    """The entry of the newest architecture that is not newer than `arch`, else the oldest entry."""
    known = [entry for entry in sorted(table) if entry <= arch]
    return table[known[-1] if known else min(table)]


def neighbours(config: Config) -> list[Config]:
    """What autotuning tries: the table's entry, half and double its tile, half and double its warps."""
    sizes = (config.elements, config.elements // 2, config.elements * 2)
    return [Config(size, warps) for size in sizes for warps in (config.num_warps, config.num_warps // 2) if warps]


def configure(
    name: str, table: dict[int, Config], device: torch.device, key: tuple, run: Callable[[Config], object]
) -> Config:
    """The configuration of a launch.

    Args:
        name: the kernel's.
        table: entries by architecture.
        device: where it will run.
        key: what the best choice depends on: dtype and sizes.
        run: launches the kernel in a configuration, for measuring it.
    """
    default = from_table(table, architecture(device))
    if INTERPRETED:  # a program costs the same whatever its size
        return default._replace(elements=INTERPRETED_FACTOR * default.elements)
    if not _config.autotune():
        return default
    known = _cache()
    entry = "|".join(map(str, (torch.cuda.get_device_name(device), triton.__version__, name, *key)))
    if entry not in known:
        if torch.cuda.is_current_stream_capturing():
            return default
        known[entry] = list(fastest(neighbours(default), run))
        _save(known)
    return Config(*known[entry])


def fastest(candidates: Sequence[Config], run: Callable[[Config], object]) -> Config:
    """The candidate with the shortest median time; one that does not compile or launch is passed over."""
    times = {}
    for config in candidates:
        try:
            times[config] = triton.testing.do_bench(functools.partial(run, config), return_mode="median")
        except (triton.CompilationError, triton.OutOfResources):
            continue
    return min(times, key=times.__getitem__)


def _cache_path() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "rrsis_kernels" / "autotune.json"


@functools.cache
def _cache() -> dict[str, list[int]]:
    try:
        return json.loads(_cache_path().read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _save(known: dict[str, list[int]]) -> None:
    """Writes the winners; another process sees the old file or the new one, never half of it."""
    path = _cache_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
    partial.replace(path)
