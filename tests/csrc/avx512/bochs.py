"""Runs functions of this process on an emulated processor: the processor of Bochs, from the package bochscpu-python.

The emulated processor sees the memory of this process at the addresses where it lies, so a compiled function runs as
it is, with its arguments, its data and the C library. It has what an Intel Sapphire Rapids has: AVX-512 with BF16.
"""

import ctypes
import importlib.util
import itertools
import mmap
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

PAGE = 4096
BIG_PAGE = 2 << 20
GIGABYTE = 1 << 30
STACK = 4 << 20
PRESENT_WRITABLE_USER = 7
LARGE = 1 << 7
_PHYSICAL_TABLES, _PHYSICAL_MEMORY = PAGE, 1 << 32  # where page tables, and the memory of this process, begin
_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_VECTOR_STATE = 0xE7  # XCR0: x87, SSE, AVX and the three parts of AVX-512


class CannotEmulateError(Exception):
    """There is no emulator here; the message says why."""


class EmulationError(Exception):
    """The emulated processor stopped on an exception."""


def load(compatibility: Path):
    """Imports bochscpu with the help of a library built by `build_compatibility`.

    Raises:
        CannotEmulateError: it is not installed or does not load.
    """
    if importlib.util.find_spec("bochscpu") is None:
        raise CannotEmulateError("bochscpu-python is not installed")
    helper = ctypes.CDLL(str(compatibility), ctypes.RTLD_GLOBAL)
    try:
        import bochscpu
        import bochscpu.cpu
        import bochscpu.memory
        from bochscpu import _bochscpu
    except ImportError as error:
        raise CannotEmulateError(f"bochscpu does not load: {error}") from error
    sapphire_rapids = getattr(ctypes.CDLL(_bochscpu.__file__), "_Z28create_sapphire_rapids_cpuidP8BX_CPU_C", None)
    if sapphire_rapids is not None:  # else the processor that the package was built for
        model = ctypes.c_void_p.in_dll(helper, "rrsis_processor_model")
        model.value = ctypes.cast(sapphire_rapids, ctypes.c_void_p).value
    return bochscpu


def build_compatibility(compiler: Sequence[str], folder: Path) -> Path:
    """Compiles what `load` needs."""
    output = folder / "bochs_compatibility.so"
    source = Path(__file__).with_name("bochs_compatibility.cpp")
    subprocess.run([*compiler, "-O1", "-fPIC", "-shared", str(source), "-o", str(output)], check=True)
    return output


class Processor:
    """One emulated processor; bochscpu has no more of them in a process.

    Attributes:
        calls: functions run so far.
    """

    def __init__(self, bochscpu) -> None:
        self.calls = 0
        self._bochscpu = bochscpu
        self._lock = threading.Lock()
        self._session = bochscpu.Session()
        self._session.missing_page_handler = self._provide_page
        self._fault: tuple[int, int] | None = None
        self._hooks = bochscpu.Hook()
        self._hooks.hlt = lambda session, cpu: session.stop()
        self._hooks.exception = self._on_exception
        self._pages: list[mmap.mmap] = []
        self._tables = itertools.count(_PHYSICAL_TABLES, PAGE)
        self._directories: dict[tuple[int, ...], tuple[int, ctypes.Array]] = {}
        self._root = self._new_table()
        self._stack = self._allocate(STACK) + STACK
        self._halt = self._allocate(PAGE)  # what a function returns to
        ctypes.memset(self._halt, 0xF4, PAGE)
        self._gigabytes = _populated_gigabytes()
        for index, gigabyte in enumerate(self._gigabytes):
            self._map_gigabyte(gigabyte, _PHYSICAL_MEMORY + index * GIGABYTE)

    def call(self, function: int, *arguments: int) -> int:
        """Runs a function of integers and pointers; what it returns as an integer.

        Raises:
            EmulationError: the processor met an exception: no such instruction, no such memory, ….
        """
        with self._lock:
            return self._run(function, arguments)

    def _run(self, function: int, arguments: Sequence[int]) -> int:
        state = self._start_state()
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            setattr(state, register, value)
        stack_pointer = self._stack - 64 - 8  # as a call leaves it: the return address, below a multiple of 16
        ctypes.c_size_t.from_address(stack_pointer).value = self._halt
        state.rsp, state.rip = stack_pointer, function
        self._session.cpu.state = state
        self._session.run([self._hooks])
        state = self._session.cpu.state
        if self._fault or state.rip - self._halt not in (0, 1):
            vector, code = self._fault or (-1, 0)
            raise EmulationError(f"exception {vector} (code {code}) at {state.rip:#x}, cr2 {state.cr2:#x}")
        self.calls += 1
        return state.rax

    def _start_state(self):
        """64-bit mode at privilege 0 with every vector register enabled, and this thread's own local storage."""
        bochscpu = self._bochscpu
        state = bochscpu.State()
        bochscpu.cpu.set_long_mode(state)
        state.cr0 |= 1 << 1
        state.cr4 |= 1 << 9 | 1 << 10 | 1 << 18  # SSE, its exceptions, XSAVE
        state.cr3, state.xcr0 = self._root[0], _VECTOR_STATE
        state.mxcsr, state.mxcsr_mask = 0x1F80, 0xFFFF
        state.rflags = 2
        state.cs = self._segment(0x10, 0xA09B)
        for name in ("ds", "es", "ss", "gs"):
            setattr(state, name, self._segment(0x18, 0xC093))
        state.fs = self._segment(0x18, 0xC093, base=_thread_pointer())
        return state

    def _segment(self, selector: int, attributes: int, base: int = 0):
        segment = self._bochscpu.Segment()
        segment.present, segment.selector, segment.attr = True, selector, attributes
        segment.base, segment.limit = base, 0xFFFFFFFF
        return segment

    def _on_exception(self, session, cpu: int, vector: int, code: int) -> None:
        self._fault = self._fault or (vector, code)
        session.stop()

    def _allocate(self, size: int) -> int:
        self._pages.append(mmap.mmap(-1, size))
        return ctypes.addressof(ctypes.c_char.from_buffer(self._pages[-1]))

    def _new_table(self) -> tuple[int, ctypes.Array]:
        """An empty page table: its physical address and its entries."""
        physical, place = next(self._tables), self._allocate(PAGE)
        self._bochscpu.memory.page_insert(physical, place)
        return physical, (ctypes.c_uint64 * 512).from_address(place)

    def _directory(self, *indices: int) -> tuple[int, ctypes.Array]:
        """The page table that `indices` lead to from the root."""
        if not indices:
            return self._root
        if indices not in self._directories:
            table = self._directories[indices] = self._new_table()
            self._directory(*indices[:-1])[1][indices[-1]] = table[0] | PRESENT_WRITABLE_USER
        return self._directories[indices]

    def _map_gigabyte(self, gigabyte: int, physical: int) -> None:
        _, entries = self._directory(gigabyte >> 9, gigabyte & 511)
        entries[:] = [physical + i * BIG_PAGE | LARGE | PRESENT_WRITABLE_USER for i in range(512)]

    def _provide_page(self, physical: int) -> None:
        """Gives the processor a page that it touches for the first time: that of this process."""
        gigabyte, offset = divmod(physical // PAGE * PAGE - _PHYSICAL_MEMORY, GIGABYTE)
        place = self._gigabytes[gigabyte] * GIGABYTE + offset
        self._bochscpu.memory.page_insert(physical // PAGE * PAGE, place)


def _populated_gigabytes() -> list[int]:
    """The gigabytes of the address space that hold memory now, and those that it is likely to grow into.

    Physical addresses of the emulated processor are shorter than virtual ones, so that they cannot be the same.
    """
    gigabytes = set()
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(word, 16) // GIGABYTE for word in line.split(maxsplit=1)[0].split("-"))
            if last < 1 << 17:  # what is beyond belongs to the kernel
                gigabytes.update(range(max(0, first - 16), min(last + 17, 1 << 17)))
    return sorted(gigabytes)


def _thread_pointer() -> int:
    """The base of the segment fs, which thread-local variables are read through."""
    pthread_self = ctypes.CDLL(None).pthread_self
    pthread_self.restype = ctypes.c_size_t
    return pthread_self()
