import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rrsis_kernels
from rrsis_kernels import backends, info, library


def run_info(folder, **variables):
    command = [sys.executable, "-m", "rrsis_kernels.info"]
    environment = {**os.environ, "PYTHONPATH": str(folder), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_report_names_versions_devices_and_the_backend_of_every_operator():
    text = info.report()
    assert torch.__version__ in text
    assert sys.version.split()[0] in text
    for op in backends.OPS:
        assert op in text
        assert set(info.backend_table("cpu")[op]) == {"float32", "bfloat16", "float16", "float64"}
    for name in ("_C", "_C_cuda"):
        assert name in text
    assert any(line.startswith("cpu:") for line in info.devices())


def test_backend_table_is_what_a_call_takes():
    for op in backends.OPS:
        assert info.backend_table("cpu")[op]["float32"] == backends.choose(op, "cpu", torch.float32)


def test_active_capability_is_one_that_was_compiled():
    state = info.cpu_capability()
    if state["active"] is None:
        assert not library.extension_status()["_C"].loaded
    else:
        assert state["active"] in state["compiled"]


def test_recorded_reason_is_shown(monkeypatch):
    missing = library.ExtensionStatus(False, None, "_C is not built")
    monkeypatch.setattr(library, "extension_status", lambda: {"_C": missing, "_C_cuda": missing})
    monkeypatch.setattr(info, "build_info", dict)
    monkeypatch.setattr(
        info, "build_status", lambda: {"files": {"_C": {"built": False, "reason": "c++ not found"}, "_C_cuda": {}}}
    )
    assert info.native_files()["_C"] == "not built: c++ not found"
    assert "not built: c++ not found" in info.report()
    assert info.cpu_capability() == {**info.cpu_capability(), "compiled": [], "active": None}


def test_runs_without_any_native_file(tmp_path):
    """Also the whole of what a machine without a compiler has: every operator on the reference."""
    shutil.copytree(
        Path(rrsis_kernels.__file__).parent,
        tmp_path / "rrsis_kernels",
        ignore=shutil.ignore_patterns("*.so", "_build_status.json", "__pycache__"),
    )
    result = run_info(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "_C             not built: this source tree was never built" in result.stdout
    for op in backends.OPS:
        assert any(op in line and "reference (float32" in line for line in result.stdout.splitlines())


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_forced_backend_is_shown_and_may_fail(monkeypatch, backend):
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, backend)
    text = info.report()
    assert f"backends (forced: {backend})" in text
    if not backends.can_run(backends.OPS[0], backend, "cpu", torch.float32).ok:
        assert f"fails ({backends.OPS[0]}: the forced backend '{backend}' cannot run" in text
