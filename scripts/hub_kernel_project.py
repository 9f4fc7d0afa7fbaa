"""Writes the operators as a project of Hugging Face's kernel-builder.

``python scripts/hub_kernel_project.py --out DIR``

kernel-builder gives each build's torch namespace a name of its own, so that several versions live in one process. The
package is therefore written with relative imports, and the namespace comes from the `_ops` module that kernel-builder
generates; the C++ sources take it from the macro TORCH_EXTENSION_NAME. Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "rrsis_kernels"
COPIED = ("build.toml", "LICENSE")

BUILD_NAMES = '''"""Names that kernel-builder gave this build: of the torch namespace, and of its one library."""

from __future__ import annotations

from ._ops import add_op_namespace_prefix

NAMESPACE = add_op_namespace_prefix("").removesuffix("::")

LIBRARIES = {"_C_cuda" if "_cuda_" in NAMESPACE else "_C": NAMESPACE}
'''

FLAKE = """{
  description = "Fused operators between few tokens and many pixels";

  inputs.kernel-builder.url = "github:huggingface/kernels";

  outputs =
    { self, kernel-builder }:
    kernel-builder.lib.genKernelFlakeOutputs {
      inherit self;
      path = ./.;
    };
}
"""


def relative_imports(text: str, depth: int) -> str:
    """Python source with its imports of our package, and its uses of the torch namespace, made relative.

    Args:
        text: the source.
        depth: of the file's folder below the package's.

    Raises:
        ValueError: where an absolute name of the package is left over.
    """
    dots = "." * (depth + 1)
    text = re.sub(rf"^( *)from {PACKAGE}(?:\.([\w.]+))? import ", rf"\1from {dots}\2 import ", text, flags=re.MULTILINE)
    changed = text.replace(f"torch.ops.{PACKAGE}", "_ops.ops")
    if changed != text:
        text = re.sub(r"^(?=from \.)", f"from {dots} import _ops\n", changed, count=1, flags=re.MULTILINE)
    code = re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.DOTALL)
    if left := re.search(rf"^\s*(?:from|import) {PACKAGE}\b.*|torch\.ops\.{PACKAGE}\b.*", code, flags=re.MULTILINE):
        raise ValueError(f"not understood: {left[0].strip()!r}")
    return text


def named_by_the_build(text: str) -> str:
    """C++ source whose registrations go to the namespace that the build names."""
    changed = re.sub(
        rf"\bSTABLE_TORCH_LIBRARY(_IMPL)?\({PACKAGE}, ", r"STABLE_TORCH_LIBRARY\1_EXPAND(TORCH_EXTENSION_NAME, ", text
    )
    if changed == text:
        return text
    return re.sub(r"^(?=#include)", '#include "registration.h"\n', changed, count=1, flags=re.MULTILINE)


def _write_sources(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "build_backend"))
    from rrsis_build.schemas import read_schemas, render_header

    for file in sorted((ROOT / "csrc").rglob("*.*")):
        if file.name == "build_info.cpp":  # repeats what only our own build knows
            continue
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = named_by_the_build(file.read_text(encoding="utf-8"))
        if file.name == "ops.cpp":  # Python imports the library, which therefore has to be a module
            text += "\nREGISTER_EXTENSION(TORCH_EXTENSION_NAME)\n"
        target.write_text(text, encoding="utf-8")
    schemas = read_schemas(ROOT / PACKAGE / "schemas.txt")
    (folder / "csrc" / "schemas.inc").write_text(render_header(schemas), encoding="utf-8")


def _write_package(folder: Path) -> None:
    package = ROOT / PACKAGE
    for file in sorted(path for pattern in ("*.py", "*.txt", "py.typed") for path in package.rglob(pattern)):
        relative = file.relative_to(package)
        target = folder / "torch-ext" / PACKAGE / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text(encoding="utf-8")
        if relative == Path("_build_names.py"):
            text = BUILD_NAMES
        elif file.suffix == ".py":
            try:
                text = relative_imports(text, len(relative.parts) - 1)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
        target.write_text(text, encoding="utf-8")


def write_project(out: Path) -> None:
    """Writes the project.

    Args:
        out: a folder that does not exist yet.

    Raises:
        FileExistsError: when it does.
        ValueError: when a source uses the package's name in a way that is not understood.
    """
    if out.exists():
        raise FileExistsError(f"out: {out} exists, due is a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        staged = Path(work, out.name)
        staged.mkdir()
        for name in COPIED:
            shutil.copyfile(ROOT / name, staged / name)
        (staged / "flake.nix").write_text(FLAKE, encoding="utf-8")
        _write_sources(staged)
        _write_package(staged)
        staged.rename(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status (2 where nothing can be written)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args(argv)
    try:
        write_project(arguments.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.out}; kernel-builder wants it in a git repository of its own")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
