"""The PEP 517 backend of this project: setuptools, plus the question of where torch comes from.

The native code compiles against the torch that is already installed, which pip's isolated build environment hides.
:func:`torch_finder.find_torch` finds it there all the same, and only when there is none does the build require one.
Everything else is setuptools' own backend. See docs/build.md.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import build_meta as _setuptools
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from .torch_finder import MINIMUM_VERSION, find_torch

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def torch_requirement() -> list[str]:
    """What has to be installed for the build to find a torch: nothing where there is one, or none is wanted."""
    if os.environ.get("RRSIS_SKIP_EXT", "").strip() == "1" or find_torch() is not None:
        return []
    return [f"torch>={'.'.join(map(str, MINIMUM_VERSION))}"]


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """What a wheel build needs beyond pyproject.toml's ``build-system.requires``."""
    return [*_setuptools.get_requires_for_build_wheel(config_settings), *torch_requirement()]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    """What an editable install needs beyond pyproject.toml's ``build-system.requires``."""
    return [*_setuptools.get_requires_for_build_editable(config_settings), *torch_requirement()]
