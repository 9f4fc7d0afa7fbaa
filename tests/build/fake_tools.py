"""Programs that stand in for compilers."""

import stat
from pathlib import Path


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def toolkit(home: Path, version: str = "13.1") -> Path:
    """A CUDA toolkit of which nothing but its version works; its nvcc."""
    for name in ("include/cuda_runtime.h", "lib64/libcudart.so"):
        (home / name).parent.mkdir(parents=True)
        (home / name).touch()
    return script(home / "bin" / "nvcc", f"echo 'Cuda compilation tools, release {version}, V{version}.5'")
