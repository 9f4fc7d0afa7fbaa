"""Run folders: whether a folder is one, and which there are where the user stands."""

from __future__ import annotations

import os
from pathlib import Path

RUNS = Path("runs")
"""Where `rrsis.train` puts runs that are given no other place."""

_MOST_NAMED = 5


def known_runs() -> list[Path]:
    """The runs below `RUNS` that hold a trained model, the newest first."""
    models = [config.parent / "model.safetensors" for config in RUNS.glob("*/config.json")]
    return [path.parent for path in sorted(models, key=_time_of_change, reverse=True) if path.is_file()]


def runs_here() -> str:
    """What to type for ``--model``: the runs that are here, or how to make one; ends an error message."""
    runs = known_runs()
    if not runs:
        return f"{RUNS.resolve()} holds no run yet; python -m rrsis.train makes one"
    if len(runs) == 1:
        return f"there is one here: --model {runs[0]}"
    more = ", …" if len(runs) > _MOST_NAMED else ""
    return f"runs here, newest first: {', '.join(map(str, runs[:_MOST_NAMED]))}{more}"


def check_run_folder(folder: str | os.PathLike[str] | None) -> Path:
    """Makes sure that a folder is there and holds a model.

    Args:
        folder: What the user gave; None for nothing.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: If the folder or its config.json is not there.
        ValueError: If none was given.
    """
    if folder is None:
        raise ValueError(f"model: got none, expected --model RUN, a run folder as rrsis.train leaves it; {runs_here()}")
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(
            f"model: no folder {str(path)!r}; expected a run folder as rrsis.train leaves it; {runs_here()}"
        )
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"model: {str(path)!r} holds no config.json; expected a run folder as rrsis.train leaves it; {runs_here()}"
        )
    return path


def _time_of_change(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0
