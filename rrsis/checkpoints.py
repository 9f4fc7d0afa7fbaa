"""Checkpoints that are there whole or not at all, and are looked over before a run continues from one."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rrsis.io import atomic_write, replace_folder, sync_files

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""Written last, it holds size and SHA-256 of every other file of a checkpoint."""

UNFINISHED = ".unfinished"
"""Folder inside the run's in which a checkpoint is written before it gets its name."""

BROKEN = "broken-"
"""What the name of a checkpoint begins with that was found damaged and set aside."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; the message says why, what is left, and how to go on."""


def checkpoint_path(run: str | Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Path(run) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint's folder; -1 where the name is not a checkpoint's."""
    prefix, _, number = checkpoint.name.rpartition("-")
    return int(number) if prefix == PREFIX_CHECKPOINT_DIR and number.isdecimal() else -1


def newest_first(run: str | Path) -> list[Path]:
    """The folders of a run's checkpoints, whole or not."""
    found = [path for path in Path(run).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir() and step_of(path) >= 0]
    return sorted(found, key=step_of, reverse=True)


def publish(unfinished: Path, checkpoint: Path) -> None:
    """Gives a written checkpoint its manifest, then its name; an older one of that name goes.

    Args:
        unfinished: the written folder, on the same file system.
        checkpoint: its final place.
    """
    sync_files(unfinished)
    manifest = {name: {"size": path.stat().st_size, "sha256": _digest(path)} for name, path in _files(unfinished)}
    with atomic_write(unfinished / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    replace_folder(unfinished, checkpoint)
    shutil.rmtree(checkpoint.with_name(BROKEN + checkpoint.name), ignore_errors=True)


def find_fault(checkpoint: Path) -> str | None:
    """Reads a checkpoint through.

    Returns:
        Why a run cannot continue from it, or None where every file is as it was written.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        for name, due in manifest.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != due["size"]:
                return f"{name} has {path.stat().st_size} bytes of {due['size']}"
            if _digest(path) != due["sha256"]:
                return f"{name} is not what was written"
    except OSError as error:
        return f"{Path(error.filename or MANIFEST).name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def find_checkpoint(value: str | None, output_dir: str) -> str | None:
    """Finds the checkpoint to resume from.

    Args:
        value: None for none; "last" (or "true") for the newest whole one in `output_dir`; or a checkpoint's folder.
        output_dir: the run folder.

    Returns:
        The checkpoint's folder, or None. Newer ones that are damaged or not whole are passed over, which is logged.

    Raises:
        ValueError: when there is no whole checkpoint where one was asked for.
    """
    if value is None:
        return None
    if value.lower() not in ("last", "true"):
        fault = find_fault(Path(value))
        if fault is not None:
            raise ValueError(f"--resume_from_checkpoint must be a complete checkpoint's folder; got {value}: {fault}")
        return value
    faults = []
    for checkpoint in newest_first(output_dir):
        fault = find_fault(checkpoint)
        if fault is None:
            for passed_over in faults:
                logger.warning("%s; continuing from %s", passed_over, checkpoint)
            return str(checkpoint)
        faults.append(f"{checkpoint} cannot be used: {fault}")
    reasons = f" ({'; '.join(faults)})" if faults else ""
    raise ValueError(f"--resume_from_checkpoint {value}: {output_dir} holds no complete checkpoint{reasons}")


def clear_before_training(run: str | Path, resumed_from: str | None, overwrite: bool) -> None:
    """Clears a run folder of what would be in the way of new checkpoints.

    Unfinished ones go. So do all of an older run that is to be overwritten. Of a continued run, what is newer than the
    checkpoint it continues from and damaged gets another name: under its own it would count among the newest N.

    Args:
        run: the run folder.
        resumed_from: the checkpoint, or None for a run from the start.
        overwrite: whether a run from the start may remove an older one's checkpoints.
    """
    shutil.rmtree(Path(run) / UNFINISHED, ignore_errors=True)
    for checkpoint in newest_first(run):
        if resumed_from is None:
            if overwrite:
                shutil.rmtree(checkpoint)
        elif step_of(checkpoint) > step_of(Path(resumed_from)) and find_fault(checkpoint) is not None:
            aside = checkpoint.with_name(BROKEN + checkpoint.name)
            replace_folder(checkpoint, aside)
            logger.warning("%s is damaged: set aside as %s", checkpoint, aside.name)


def describe_failure(run: str | Path, step: int, error: BaseException) -> str:
    """What to say when a checkpoint could not be written."""
    run = Path(run)
    whole = next((path.name for path in newest_first(run) if find_fault(path) is None), None)
    free = shutil.disk_usage(run).free >> 20 if run.exists() else 0
    left = f"The newest whole checkpoint is {whole}: make room and continue with --resume_from_checkpoint last"
    return (
        f"{checkpoint_path(run, step)} could not be written: {error} ({free} MiB are free). What had been written of "
        f"it is removed. {left if whole else 'There is no earlier checkpoint'}"
    )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            yield str(path.relative_to(folder)), path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
