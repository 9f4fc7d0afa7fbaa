"""Builds the native files of rrsis_kernels; everything else about the project is in pyproject.toml.

What is compiled, and with which flags, is in build_backend/rrsis_build/plan.py; docs/build.md explains it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))

from rrsis_build.native import STATUS_FILE, build_native, native_file_names  # noqa: E402 (needs the path above)

PACKAGE = "rrsis_kernels"


class BuildNative(build_ext):
    """setuptools' ``build_ext``, with the compiling done by ninja and a reason recorded for what cannot be built."""

    def run(self) -> None:
        """Builds into the package folder of the source tree (editable, ``--inplace``) or of the build tree."""
        build_native(ROOT, self._work_folder(), self._destination())

    def _work_folder(self) -> Path:
        # An editable install is given a temporary folder; the one that `setup.py build_ext --inplace` uses is kept, so
        # that installing again compiles only what changed.
        if self.editable_mode:
            build = self.get_finalized_command("build")
            return ROOT / "build" / f"temp.{build.plat_name}-{sys.implementation.cache_tag}"
        return Path(self.build_temp)

    def _destination(self) -> Path:
        return ROOT / PACKAGE if self.inplace else Path(self.build_lib, PACKAGE)

    def get_ext_filename(self, fullname: str) -> str:
        """Plain shared libraries are named ``_C.so``: they depend on torch, not on the version of Python."""
        package, _, name = fullname.rpartition(".")
        return os.path.join(*package.split("."), native_file_names()[name])

    def _files(self) -> list[str]:
        return [STATUS_FILE, *(name for name in native_file_names().values() if (self._destination() / name).exists())]

    def get_outputs(self) -> list[str]:
        """The files that were built, as paths in the build tree."""
        return [os.path.join(self.build_lib, PACKAGE, name) for name in self._files()]

    def get_output_mapping(self) -> dict[str, str]:
        """Where an editable install finds each of the files in the source tree."""
        if not self.inplace:
            return {}
        return {os.path.join(self.build_lib, PACKAGE, name): str(ROOT / PACKAGE / name) for name in self._files()}

    def get_source_files(self) -> list[str]:
        """MANIFEST.in lists the sources."""
        return []


setup(
    # Placeholders: that there are extension modules makes setuptools build a platform wheel.
    ext_modules=[Extension(f"{PACKAGE}.{name}", sources=[]) for name in native_file_names()],
    cmdclass={"build_ext": BuildNative},
)
