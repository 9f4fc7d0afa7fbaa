import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A stand-in for the operators that compiles in a fraction of a second: it needs no header of torch.
OPERATORS = """
struct Library { int count = 0; void def(const char*) { ++count; } };
extern "C" __attribute__((visibility("default"))) int schema_count() {
  Library m;
#include "schemas.inc"
  return m.count;
}
"""

# Which instruction sets a file was compiled for: 3 for AVX-512 with BF16, 2 for AVX-512, 1 for AVX2, 0 for less.
ISA = """
extern "C" __attribute__((visibility("default"))) int isa_{name}() {{
#if defined(__AVX512BF16__)
  return 3;
#elif defined(__AVX512F__)
  return 2;
#elif defined(__AVX2__) && defined(__FMA__)
  return 1;
#else
  return 0;
#endif
}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project that is built like this one, in a folder of its own, with no build variables set."""
    for name in ("CXX", "RRSIS_REQUIRE_EXT", "RRSIS_SKIP_EXT", "RRSIS_BUILD_CUDA", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RRSIS_BUILD_CUDA", "0")
    root = tmp_path / "project"
    (root / "csrc" / "cpu").mkdir(parents=True)
    (root / "csrc" / "ops.cpp").write_text(OPERATORS)
    for name in ("baseline", "avx2", "avx512", "avx512bf16"):
        (root / "csrc" / "cpu" / f"isa_{name}.cpp").write_text(ISA.format(name=name))
    shutil.copy(ROOT / "csrc" / "build_info.cpp", root / "csrc")
    for package in ("rrsis", "rrsis_kernels"):
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
        (root / package / "py.typed").touch()
    (root / "rrsis_kernels" / "schemas.txt").write_text("# two\nf(Tensor x) -> Tensor\ng(Tensor x) -> Tensor\n")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, root)
    (root / "README.md").write_text("A project for tests.\n")
    shutil.copytree(ROOT / "build_backend", root / "build_backend", ignore=shutil.ignore_patterns("__pycache__"))
    return root
