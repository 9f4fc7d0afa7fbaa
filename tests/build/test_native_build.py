import ctypes
import dataclasses
import importlib.util
import json
import platform
import shutil
import sys

import pytest
import torch
from fake_tools import toolkit
from rrsis_build import native, plan
from rrsis_build.toolchain import CannotBuildError

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")


def build(project):
    """Builds into project/out; the outcomes by name."""
    outcomes = native.build_native(project, project / "work", project / "out")
    return {outcome.name: outcome for outcome in outcomes}


def status(folder):
    return json.loads((folder / native.STATUS_FILE).read_text())["files"]


@needs_compiler
def test_builds_loads_and_rebuilds_only_what_changed(project):
    outcomes = build(project)
    assert outcomes["_C"].built, outcomes["_C"].reason
    assert outcomes["_build_info"].built, outcomes["_build_info"].reason
    assert not outcomes["_C_cuda"].built
    assert "RRSIS_BUILD_CUDA=0" in status(project / "out")["_C_cuda"]["reason"]

    library = ctypes.CDLL(str(project / "out" / "_C.so"))
    assert library.schema_count() == 2
    if platform.machine() == "x86_64":
        levels = [library.isa_baseline(), library.isa_avx2(), library.isa_avx512(), library.isa_avx512bf16()]
        assert levels == [0, 1, 2, 3]

    objects = {path.name: path.stat().st_mtime_ns for path in (project / "work" / "cpu").glob("*.o")}
    (project / "csrc" / "cpu" / "isa_baseline.cpp").write_text('extern "C" int changed() { return 1; }\n')
    assert build(project)["_C"].built
    changed = {
        path.name for path in (project / "work" / "cpu").glob("*.o") if path.stat().st_mtime_ns != objects[path.name]
    }
    assert changed == {"isa_baseline.o"}

    spec = importlib.util.spec_from_file_location("_build_info", project / "out" / plan.build_info_file_name())
    info = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(info)
    info = info.build_info()
    assert info["torch_version"] == torch.__version__
    assert info["torch_target_version"] == plan.TORCH_TARGET_VERSION
    assert info["cpu_capabilities"] == {name: " ".join(flags) for name, flags in plan.isa_flags().items()}
    assert info["cuda_built"] is False
    assert "RRSIS_BUILD_CUDA=0" in info["cuda_reason"]


@needs_compiler
def test_a_compile_error_is_recorded_and_the_old_file_removed(project):
    (project / "out").mkdir()
    (project / "out" / "_C.so").write_text("from an earlier build")
    (project / "csrc" / "ops.cpp").write_text("int broken() { return undeclared_name; }\n")
    (project / "csrc" / "build_info.cpp").write_text("int fine;\n")
    outcomes = build(project)
    assert not outcomes["_C"].built
    assert "undeclared_name" in outcomes["_C"].reason
    assert status(project / "out")["_C"]["reason"] == outcomes["_C"].reason
    assert not (project / "out" / "_C.so").exists()


@needs_compiler
def test_a_source_for_an_unknown_instruction_set_is_refused(project):
    (project / "csrc" / "cpu" / "isa_neon.cpp").touch()
    (project / "csrc" / "build_info.cpp").write_text("int fine;\n")
    assert "isa_neon.cpp" in build(project)["_C"].reason


def test_without_a_compiler_nothing_is_built_and_the_reason_recorded(project, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    outcomes = build(project)
    assert not any(outcome.built for outcome in outcomes.values())
    for entry in status(project / "out").values():
        assert "/nonexistent/c++ not found" in entry["reason"]
    assert not list((project / "out").glob("*.so"))


def test_without_torch_the_reason_is_recorded(project, monkeypatch):
    monkeypatch.setattr(native, "find_torch", lambda: None)
    assert build(project)["_C"].reason == "no torch of at least 2.11 to compile against"


def test_a_required_extension_that_cannot_be_built_is_an_error(project, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("RRSIS_REQUIRE_EXT", "1")
    with pytest.raises(CannotBuildError, match="_C.so could not be built and RRSIS_REQUIRE_EXT=1.*not found"):
        build(project)


def test_a_required_cuda_extension_that_cannot_be_built_is_an_error(project, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("RRSIS_BUILD_CUDA", "1")
    with pytest.raises(CannotBuildError, match="_C_cuda.so could not be built and RRSIS_BUILD_CUDA=1"):
        build(project)


@needs_compiler
def test_an_nvcc_that_is_too_old_leaves_everything_else(project, tmp_path, monkeypatch, capsys):
    toolkit(tmp_path / "cuda", "11.8")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.delenv("RRSIS_BUILD_CUDA")
    torch_with_cuda = dataclasses.replace(native.find_torch(), cuda="11.8")
    monkeypatch.setattr(native, "find_torch", lambda: torch_with_cuda)
    outcomes = build(project)
    assert outcomes["_C"].built
    assert outcomes["_build_info"].built
    reason = status(project / "out")["_C_cuda"]["reason"]
    assert "nvcc 11.8" in reason
    assert "is too old: the kernels need 12.0 or later" in reason
    assert f"rrsis: _C_cuda.so: {reason}" in capsys.readouterr().err, "the build's log says it"


def test_skipping_removes_what_was_there(project, monkeypatch):
    monkeypatch.setenv("RRSIS_SKIP_EXT", "1")
    (project / "out").mkdir()
    (project / "out" / "_C.so").touch()
    outcomes = build(project)
    assert "RRSIS_SKIP_EXT=1" in outcomes["_C"].reason
    assert not (project / "out" / "_C.so").exists()


@pytest.mark.parametrize("variable", ["RRSIS_REQUIRE_EXT", "RRSIS_SKIP_EXT", "RRSIS_BUILD_CUDA"])
def test_switches_are_zero_or_one(project, monkeypatch, variable):
    monkeypatch.setenv(variable, "maybe")
    with pytest.raises(ValueError, match=f"{variable}: expected 0 or 1, got 'maybe'"):
        build(project)


@pytest.mark.skipif(sys.platform != "linux", reason="the native build is for Linux")
def test_other_systems_say_so(project, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux only" in build(project)["_C"].reason
