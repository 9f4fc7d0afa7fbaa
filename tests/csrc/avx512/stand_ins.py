"""Runs tests of the AVX-512 kernels where no processor has AVX-512.

    python tests/csrc/avx512/stand_ins.py wide [arguments of pytest]
    python tests/csrc/avx512/stand_ins.py bochs [arguments of pytest]

`wide` compiles the kernels of 16 lanes for AVX2 and puts them where the AVX-512 kernels are; `bochs` runs the AVX-512
kernels of `_C.so` themselves on an emulated processor. Without arguments, all tests of the operators run on them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
# Light: compiled in a quarter of the time, and fast enough. -O1 alone would not fuse products and sums.
OPTIMISATION = ("-O1", "-fexpensive-optimizations")
CANNOT_RUN = 77
"""Exit status of pytest where the stand-in cannot be used; the last line of standard error says why."""
EVERYTHING = ("tests/kernels", "tests/csrc/test_cpu_ops.py", "-k", "avx512")


def build_wide_vectors(compiler: Sequence[str], folder: Path) -> Path:
    """Compiles `isa_wide*.cpp`."""
    from rrsis_build import plan

    flags = [flag for flag in plan.CXX_FLAGS if not flag.startswith(("-O", "-DTORCH"))]
    output = folder / "wide_vectors.so"
    # -Wno-psabi: GCC remarks on every function that takes 64-byte vectors without AVX-512; all of them are inlined.
    command = [*compiler, *flags, *OPTIMISATION, "-Wno-psabi", f"-I{ROOT / 'csrc' / 'cpu'}", "-shared"]
    subprocess.run([*command, *map(str, sorted(HERE.glob("isa_wide*.cpp"))), "-o", str(output)], check=True)
    return output


def build_bochs(compiler: Sequence[str], folder: Path) -> Path:
    """Compiles what the emulator needs."""
    import bochs

    return bochs.build_compatibility(compiler, folder)


STAND_INS = {
    "wide": ("on_wide_vectors", "RRSIS_WIDE_VECTORS", build_wide_vectors),
    "bochs": ("on_bochs", "RRSIS_BOCHS", build_bochs),
}


def run_tests(name: str, arguments: Sequence[str], folder: Path, **options) -> subprocess.CompletedProcess:
    """Runs pytest in a process of its own, in which a stand-in takes the place of AVX-512.

    Args:
        name: one of `STAND_INS`.
        arguments: of pytest.
        folder: for what is compiled.
        options: of `subprocess.run`.
    """
    plugin, variable, build = STAND_INS[name]
    compiler = os.environ.get("CXX", "").split() or [shutil.which("c++") or "c++"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "RRSIS_"))}
    environment[variable] = str(build(compiler, folder))
    environment.setdefault("OMP_NUM_THREADS", "1")  # idle threads would wait busily; tests of threads set their number
    places = [str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, **options)


def main() -> int:
    """The command line; pytest's exit status."""
    if len(sys.argv) < 2 or sys.argv[1] not in STAND_INS:
        print(__doc__, file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT / "build_backend"))
    with tempfile.TemporaryDirectory() as folder:
        return run_tests(sys.argv[1], sys.argv[2:] or EVERYTHING, Path(folder)).returncode


if __name__ == "__main__":
    sys.exit(main())
