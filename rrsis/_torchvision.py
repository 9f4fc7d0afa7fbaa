"""Lets timm be imported beside a torchvision whose compiled operators do not load. Imported first by :mod:`rrsis`.

timm needs torchvision, and PyPI's torchvision is compiled for CUDA. Beside a CPU build of torch its library cannot be
loaded; torchvision tolerates that but then registers fake kernels for operators that the library should have declared
and fails with "operator torchvision::nms does not exist". Nothing here uses those operators, so declaring them is
enough; calling one still raises torchvision's own error. A torchvision that works is left alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import torch

_declarations: list[torch.library.Library] = []  # a declaration lives as long as its Library


def make_torchvision_importable() -> bool:
    """Imports torchvision, declaring the operators that its import misses.

    Returns:
        Whether torchvision can be imported now; False where it is not installed.

    Raises:
        RuntimeError: the import fails for another reason.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if re.search(r"operator torchvision::\w+ does not exist", str(error)) is None:
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare(_fake_operators(Path(spec.origin).with_name("_meta_registrations.py")))
        importlib.import_module("torchvision")
    return True


def _fake_operators(source: Path) -> list[str]:
    """The operators for which a source file of torchvision registers fake kernels unconditionally."""
    return re.findall(r"register_fake\(\s*[\"']torchvision::(\w+)[\"']", source.read_text(encoding="utf-8"))


def _declare(names: list[str]) -> None:
    """Declares operators without an implementation; their signature is never looked at."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in names:
        library.define(f"{name}() -> ()")
    _declarations.append(library)


make_torchvision_importable()
