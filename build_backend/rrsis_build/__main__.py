"""``PYTHONPATH=build_backend python -m rrsis_build``: builds the native files into the source tree.

The same as ``python setup.py build_ext --inplace``, without reading the project's metadata: it needs no particular
setuptools, which suits a machine on which nothing can be installed.
"""

import sys
import sysconfig
from pathlib import Path

from .native import build_native

root = Path(__file__).resolve().parents[2]
work = root / "build" / f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
build_native(root, work, root / "rrsis_kernels")
