"""Instructions that the CPU kernels run on small fixed problems, counted by callgrind.

    python tests/csrc/instructions/instruction_count.py            # the counts of this tree beside the committed ones
    python tests/csrc/instructions/instruction_count.py --write    # makes them the committed ones

Unlike a time, a count does not depend on what else the machine does. It depends on the compiler: each has its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FIGURES = HERE / "figures.json"
ALLOWED_GROWTH = 1.10
MEASURED = "measured"  # the driver's function whose calls are counted

# What runs, by name: the driver's OPERATOR, DTYPE and sizes. Odd sizes are among them, so that tails count too.
CASES = {
    "bsc_forward": ("bsc_forward", "float32", 500, 64, 4, 20, 2),
    "bsc_backward": ("bsc_backward", "float32", 500, 64, 4, 20, 2),
    "bsc_forward, odd sizes": ("bsc_forward", "float32", 333, 41, 3, 7, 1),
    "bsc_backward, odd sizes": ("bsc_backward", "float32", 333, 41, 3, 7, 1),
    "bsc_forward, many rows": ("bsc_forward", "float32", 96, 128, 16, 20, 1),
    "bsc_backward, many rows": ("bsc_backward", "float32", 96, 128, 16, 20, 1),
    "bsc_forward, bfloat16": ("bsc_forward", "bfloat16", 500, 64, 4, 20, 2),
    "bsc_backward, bfloat16": ("bsc_backward", "bfloat16", 500, 64, 4, 20, 2),
    "twin_forward": ("twin_forward", "float32", 500, 64, 4, 4, 2),
    "twin_backward": ("twin_backward", "float32", 500, 64, 4, 4, 2),
    "mask_statistics_forward": ("mask_statistics_forward", "float32", 24, 96),
    "mask_statistics_backward": ("mask_statistics_backward", "float32", 24, 96),
    "masked_cosine_forward": ("masked_cosine_forward", "float32", 200, 64),
    "masked_cosine_backward": ("masked_cosine_backward", "float32", 200, 64),
}
CAPABILITIES = ("baseline", "avx2")


def compiler() -> str:
    """The command that compiles C++."""
    return os.environ.get("CXX", "g++")


def compiler_name() -> str:
    """The compiler and its major version, by which figures are kept: "g++ 12"."""
    version = subprocess.run([compiler(), "-dumpversion"], capture_output=True, text=True, check=True).stdout
    return f"{Path(compiler()).name} {version.split('.')[0].strip()}"


def missing() -> str | None:
    """Why nothing can be counted here, or None."""
    for tool in ("valgrind", compiler()):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if os.uname().machine != "x86_64":
        return f"figures are of x86_64, this is {os.uname().machine}"
    return None


def build(folder: Path) -> Path:
    """Compiles the kernels, with the flags of the real build, and the driver.

    Returns:
        The driver.
    """
    from rrsis_build.plan import CXX_FLAGS, X86_64_ISA_FLAGS

    include = f"-I{ROOT / 'csrc' / 'cpu'}"
    objects = [folder / f"{name}.o" for name in CAPABILITIES]
    jobs = [
        subprocess.Popen(
            [compiler(), *CXX_FLAGS, *X86_64_ISA_FLAGS[name], include]
            + ["-c", str(ROOT / "csrc" / "cpu" / f"isa_{name}.cpp"), "-o", str(target)]
        )
        for name, target in zip(CAPABILITIES, objects, strict=True)
    ]
    failed = [job.wait() for job in jobs]  # every one, before any complaint
    if any(failed):
        raise RuntimeError("the kernels do not compile; the compiler's words are above")
    driver = folder / "kernel_driver"
    sources = sorted(map(str, HERE.glob("*.cpp")))
    subprocess.run(
        [compiler(), "-std=c++20", "-O1", include, *sources, *map(str, objects), "-o", str(driver)], check=True
    )
    return driver


def count(driver: Path, capability: str, case: str) -> int:
    """Instructions of one run of a case, without setting it up."""
    operator, dtype, *sizes = CASES[case]
    callgrind = ["valgrind", "--tool=callgrind", f"--toggle-collect={MEASURED}", "--callgrind-out-file=/dev/null"]
    command = [str(driver), capability, operator, dtype, "1", *map(str, sizes)]
    result = subprocess.run([*callgrind, *command], capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode != 0 or found is None or found[1] == "0":
        raise RuntimeError(f"callgrind failed on {capability} {case}: {result.stderr[-2000:]}")
    return int(found[1])


def committed() -> dict[str, dict[str, int]]:
    """Committed counts by "capability, case", by compiler."""
    return json.loads(FIGURES.read_text())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make these the committed figures")
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(f"instruction_count.py: {reason}")
    sys.path.insert(0, str(ROOT / "build_backend"))
    figures = committed() if FIGURES.exists() else {}
    before, now = figures.get(compiler_name(), {}), {}
    with tempfile.TemporaryDirectory() as folder:
        driver = build(Path(folder))
        for name in (f"{capability}, {case}" for capability in CAPABILITIES for case in CASES):
            now[name] = count(driver, *name.split(", ", 1))
            change = f"{now[name] / before[name] - 1:+8.2%}" if name in before else "     new"
            print(f"{now[name]:12,d} {change}  {name}")
    if arguments.write:
        temporary = FIGURES.with_suffix(".new")
        temporary.write_text(json.dumps(figures | {compiler_name(): now}, indent=2) + "\n")
        temporary.replace(FIGURES)


if __name__ == "__main__":
    main()
