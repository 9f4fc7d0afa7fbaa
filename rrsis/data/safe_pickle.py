"""Reads pickles that can hold nothing but plain values.

Unpickling runs whatever the file asks for. A file of annotations has no business asking for anything: here every name
that a pickle looks up is refused, apart from those of a few empty-handed containers, before anything of it is called.
"""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

_ALLOWED: dict[tuple[str, str], Any] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("__builtin__", "complex"): complex,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle asks for something other than plain containers, numbers and strings."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise UnsafePickleError(f"it asks for {module}.{name}; only plain containers, numbers and strings are read")

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("it refers to objects outside itself; only plain containers are read")


def load_plain_pickle(path: str | Path) -> Any:
    """Reads a pickle of plain containers (list, dict, tuple, set), numbers, strings and bytes.

    Pickles of Python 2 are read as UTF-8.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        UnsafePickleError: It asks for anything else; nothing of it was run.
        ValueError: It is no pickle, or a truncated one.
    """
    path = Path(path)
    with path.open("rb") as stream:
        try:
            return _PlainUnpickler(stream, encoding="utf-8").load()
        except UnsafePickleError as error:
            raise UnsafePickleError(f"refused to read {path}: {error}") from None
        except Exception as error:  # a broken pickle can raise nearly anything: EOFError, KeyError, MemoryError ...
            raise ValueError(f"{path} is not a readable pickle: {type(error).__name__}: {error}") from error
