"""Lays the built operators out as a kernel that Hugging Face's `kernels` loads: ``python scripts/build_hub_kernel.py``.

What `build.toml` names is compiled by `pip install -e .`; this copies the package with its compiled libraries to
OUT/build/<variant>/, one variant a backend, and writes the metadata that `kernels` asks for. Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "rrsis_kernels"

MIN_KERNELS = "0.17.0"
"""Oldest release of `kernels` that imports a kernel under its `id`, which the package's imports of itself rely on."""


def lay_out(out: Path, package: Path = ROOT / PACKAGE) -> list[Path]:
    """Writes the variants that the package's libraries allow: the CPU's, and CUDA's where `_C_cuda` was built.

    Args:
        out: the folder that will hold `build/`; variants that are there already are replaced.
        package: the package's folder, with its compiled libraries.

    Returns:
        The variants' folders.

    Raises:
        FileNotFoundError: when the CPU library is not built.
        ValueError: when it is not known for which CUDA the CUDA library was built.
    """
    if not (package / "_C.so").is_file():
        raise FileNotFoundError(f"{package / '_C.so'}: not built (pip install -e .)")
    recipe = tomllib.loads((ROOT / "build.toml").read_text(encoding="utf-8"))
    backends: list[tuple[str, dict[str, Any], list[str]]] = [("cpu", {"type": "cpu"}, ["_C.so"])]
    if (package / "_C_cuda.so").is_file():
        version, architectures = _cuda_build()
        backend = {"type": "cuda", "archs": architectures}
        backends.append((f"cu{version.replace('.', '')}", backend, ["_C.so", "_C_cuda.so"]))
    folders = []
    for tag, backend, libraries in backends:
        abi = recipe["torch"]["stable-abi"][backend["type"]].replace(".", "")
        name = f"torch-stable-abi{abi}-{tag}-{platform.machine()}-{platform.system().lower()}"
        folders.append(out / "build" / name)
        _write_variant(folders[-1], package, libraries, _metadata(recipe["general"], backend))
    return folders


def _cuda_build() -> tuple[str, list[str]]:
    """CUDA version, as 13.0, and architectures of the CUDA library."""
    from rrsis_kernels.info import build_info

    info = build_info()
    if not info.get("cuda_built"):
        raise ValueError(
            f"{PACKAGE}/_C_cuda.so: _build_info does not say for which CUDA it was built; build both again"
        )
    return info["torch_cuda"], info["cuda_architectures"].split(";")


def _metadata(general: dict[str, Any], backend: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": general["name"],
        # The name under which it is imported and the namespace of the torch operators, which is compiled in.
        "id": PACKAGE,
        "version": general["version"],
        "license": general["license"],
        "kernels-minver": MIN_KERNELS,
        "python-depends": [],
        "backend": backend,
    }


def _write_variant(folder: Path, package: Path, libraries: list[str], metadata: dict[str, Any]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    files = [file for pattern in ("*.py", "*.txt", "py.typed") for file in package.rglob(pattern)]
    files += [package / name for name in libraries]
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        staged = Path(work, folder.name)
        digest = {}
        for file in sorted(files):
            relative = file.relative_to(package)
            (staged / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, staged / relative)
            digest[relative.as_posix()] = base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()
        metadata = {**metadata, "digest": {"algorithm": "sha256", "files": digest}}
        (staged / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        staged.rename(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status (2 where nothing can be laid out)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "hub", help="folder (default: build/hub)")
    arguments = parser.parse_args(argv)
    try:
        folders = lay_out(arguments.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for folder in folders:
        print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
