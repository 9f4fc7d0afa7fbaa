"""Finds an installed PyTorch by looking at files, without importing it.

The kernels use PyTorch's stable ABI, so a build needs its headers and two of its libraries, nothing that runs. Reading
``torch/version.py`` instead of importing torch keeps the build independent of what torch itself imports, and lets it
use the torch of the environment that pip installs *into* while running inside pip's isolated build environment.
"""

from __future__ import annotations

import ast
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MINIMUM_VERSION = (2, 11)


@dataclass(frozen=True)
class TorchInstall:
    """One installed PyTorch.

    Attributes:
        root: the package folder (``site-packages/torch``).
        version: ``torch.__version__``.
        cuda: ``torch.version.cuda``; None for a build without CUDA.
    """

    root: Path
    version: str
    cuda: str | None

    @property
    def include_dir(self) -> Path:
        """Folder of the C++ headers."""
        return self.root / "include"

    @property
    def library_dir(self) -> Path:
        """Folder of libtorch."""
        return self.root / "lib"


def parse_version(version: str) -> tuple[int, int]:
    """Major and minor number of a version such as ``2.15.0+cu132``.

    Raises:
        ValueError: the text does not start with two numbers.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(f"version: expected 'MAJOR.MINOR...', got {version!r}")
    return int(match[1]), int(match[2])


def candidate_folders() -> list[Path]:
    """Folders that may hold a torch package, the most specific first.

    Inside pip's isolated build environment ``sys.path`` has only what pip put there, while ``sysconfig`` still names
    the site-packages of the environment that pip runs in. ``python -m build`` and uv isolate with a virtual
    environment of their own; from there only the activated environment is known (``VIRTUAL_ENV``, ``CONDA_PREFIX``).
    """
    folders = [entry or os.getcwd() for entry in sys.path]
    folders += [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    in_virtual_environment = sys.prefix != sys.base_prefix
    if not in_virtual_environment or _sees_system_packages(Path(sys.prefix)):
        if site.ENABLE_USER_SITE is not None:  # None: switched off for security reasons
            folders.append(site.getusersitepackages())
        base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        folders += [sysconfig.get_path(name, vars=base) for name in ("purelib", "platlib")]
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if prefix := os.environ.get(variable):
            active = {"base": prefix, "platbase": prefix}
            folders += [sysconfig.get_path(name, "posix_prefix", vars=active) for name in ("purelib", "platlib")]
    return list(dict.fromkeys(Path(folder) for folder in folders))


def _sees_system_packages(prefix: Path) -> bool:
    try:
        text = (prefix / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"^include-system-site-packages\s*=\s*true\s*$", text, re.MULTILINE | re.IGNORECASE) is not None


def read_install(root: Path) -> TorchInstall | None:
    """Reads the torch package at ``root``; None if it is not one that can be compiled against."""
    needed = ("include/torch/csrc/stable/library.h", "lib/libtorch_cpu.so")
    if not all((root / name).exists() for name in needed):
        return None
    try:
        constants = _assigned_constants((root / "version.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None
    version = constants.get("__version__")
    if not isinstance(version, str):
        return None
    cuda = constants.get("cuda")
    return TorchInstall(root, version, cuda if isinstance(cuda, str) else None)


def _assigned_constants(source: str) -> dict[str, object]:
    """Module-level ``name = constant`` and ``name: type = constant`` of a Python source."""
    constants: dict[str, object] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant):
            constants[target.id] = node.value.value
    return constants


def find_torch(
    minimum: tuple[int, int] = MINIMUM_VERSION, folders: Iterable[Path] | None = None
) -> TorchInstall | None:
    """The first installed PyTorch of at least ``minimum``.

    Args:
        minimum: smallest (major, minor) that will do.
        folders: where to look; :func:`candidate_folders` by default.

    Returns:
        The installation, or None if there is none.
    """
    for folder in candidate_folders() if folders is None else folders:
        install = read_install(Path(folder) / "torch")
        if install is not None and parse_version(install.version) >= minimum:
            return install
    return None
