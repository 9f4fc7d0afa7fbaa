"""Files that are there whole or not at all, and their names."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path` and renames it onto `path` when the block ends without an error.

    The temporary file keeps the suffix of `path`, since many writers choose their format by it.

    Args:
        path: where the file shall be; its folder is made.

    Yields:
        The temporary path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; give what any other new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def numbered_paths(path: str | os.PathLike[str], count: int) -> list[Path]:
    """``path`` itself for one expression; for several, numbered before the suffix: mask-1.png, mask-2.png, ..."""
    path = Path(path)
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]


def sync_files(folder: Path) -> None:
    """Sees every file below a folder onto the disk, and the folders' lists of them."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(source: Path, target: Path) -> None:
    """Gives a folder another name on the same file system; an older folder of that name goes.

    Whenever this is cut off, there is the older folder, or none, or the new one; never a mixture.

    Args:
        source: the folder.
        target: its new path.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)
