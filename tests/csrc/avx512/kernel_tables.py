"""The kernel tables of the `_C.so` in this process, and other kernels put in their place.

Which table may run depends on the processor. A test that runs one of the others through a stand-in replaces that table
here, in memory, and makes the library believe in the processor. Everything else is the library as it was built: its
operators, how they split work, and how a table is chosen.
"""

import ctypes
import mmap
import shutil
import subprocess
from collections.abc import Sequence

from rrsis_kernels import library

LEVELS = ("avx512", "avx512bf16")
"""The instruction sets that have stand-ins; the second one's table is for bf16 inputs alone."""
POINTER = ctypes.sizeof(ctypes.c_void_p)
_PROTECTION = mmap.PROT_READ | mmap.PROT_WRITE


class CannotReplaceError(Exception):
    """The library of this installation does not allow it; the message says why."""


class KernelLibrary:
    """The `_C.so` that this process has loaded, with the addresses of its local symbols.

    Raises:
        CannotReplaceError: there is no such library, no `nm` to read it, or it has no local symbols.
    """

    def __init__(self) -> None:
        status = library.extension_status()["_C"]
        if not status.loaded:
            raise CannotReplaceError(f"no C++ kernels: {status.reason}")
        if shutil.which("nm") is None:
            raise CannotReplaceError("nm (binutils) is not installed")
        self._base = _load_address(status.path)
        self._symbols = _symbols(status.path)

    def address(self, symbol: str) -> tuple[int, int]:
        """Where a symbol lies in this process, and its size in bytes."""
        if symbol not in self._symbols:
            raise CannotReplaceError(f"_C.so has no symbol {symbol}: it was stripped, or built by another compiler")
        offset, size = self._symbols[symbol][0]
        return self._base + offset, size

    def table(self, level: str) -> list[int]:
        """Addresses of the kernels of an instruction set, in the order of `KernelTable`."""
        place, slots = self._table(level)
        return list((ctypes.c_size_t * slots).from_address(place))

    def replace(self, level: str, kernels: Sequence[int]) -> None:
        """Makes `kernels`, in the order of `KernelTable`, the kernels of an instruction set."""
        place, slots = self._table(level)
        if len(kernels) != slots:
            raise CannotReplaceError(f"{len(kernels)} kernels for a table of {slots}: rebuild the library")
        _make_writable(place, slots * POINTER)  # constant data, made read-only once it was relocated
        (ctypes.c_size_t * slots).from_address(place)[:] = kernels

    def claim_every_instruction_set(self) -> None:
        """Makes `__builtin_cpu_supports` say yes to everything, in this library alone.

        What it takes by itself does not change, since AVX-512 is not among that.
        """
        for symbol in ("__cpu_model", "__cpu_features2"):
            place, size = self.address(symbol)
            # The first three words of __cpu_model are vendor, type and subtype; features follow.
            first = 12 if symbol == "__cpu_model" else 0
            ctypes.memset(place + first, 0xFF, size - first)

    def _table(self, level: str) -> tuple[int, int]:
        """Place and number of slots of a table."""
        name = f"{level}_kernels"
        function, _ = self.address(f"_ZN13rrsis_kernels{len(name)}{name}Ev")
        place = ctypes.CFUNCTYPE(ctypes.c_void_p)(function)()
        tables = self._symbols["_ZN13rrsis_kernels12_GLOBAL__N_1L6kTableE"]
        sizes = {self._base + offset: size for offset, size in tables}
        return place, sizes[place] // POINTER


def _load_address(path: str) -> int:
    with open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith(str(path)):
                return int(line.split("-", 1)[0], 16)
    raise CannotReplaceError(f"{path} is not among the mapped files of this process")


def _symbols(path: str) -> dict[str, list[tuple[int, int]]]:
    """Offset and size of each symbol, by name: local ones may share theirs."""
    listing = subprocess.run(["nm", "-S", path], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[tuple[int, int]]] = {}
    for fields in map(str.split, listing.splitlines()):
        if len(fields) == 4:  # offset, size, kind, name: undefined symbols have less
            found.setdefault(fields[3], []).append((int(fields[0], 16), int(fields[1], 16)))
    return found


def _make_writable(place: int, size: int) -> None:
    first = place // mmap.PAGESIZE * mmap.PAGESIZE
    arguments = (ctypes.c_void_p(first), ctypes.c_size_t(place + size - first), ctypes.c_int(_PROTECTION))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(*arguments) != 0:
        raise CannotReplaceError(f"mprotect failed with error {ctypes.get_errno()}")
