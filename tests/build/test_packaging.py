"""setup.py and the PEP 517 hooks, run as a front end runs them: in a process of their own, in the project's folder."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest


def run(project, *arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": "build_backend", **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)


def call_hook(project, hook, **variables):
    """Calls a hook with the folder `dist`; the name of the file that it made."""
    code = f"import rrsis_build; print('MADE', rrsis_build.{hook}('dist'))"
    (project / "dist").mkdir(exist_ok=True)
    result = run(project, "-c", code, **variables)
    assert result.returncode == 0, result.stderr
    return project / "dist" / result.stdout.split("MADE ")[1].strip()


def test_setup_py_without_a_compiler_succeeds_and_says_why(project):
    result = run(project, "setup.py", "build_ext", "--inplace", CXX="/nonexistent/c++")
    assert result.returncode == 0, result.stderr
    files = json.loads((project / "rrsis_kernels" / "_build_status.json").read_text())["files"]
    assert "/nonexistent/c++ not found" in files["_C"]["reason"]
    assert "/nonexistent/c++ not found" in result.stderr


def test_setup_py_without_a_compiler_fails_where_the_extension_is_required(project):
    variables = {"CXX": "/nonexistent/c++", "RRSIS_REQUIRE_EXT": "1"}
    result = run(project, "setup.py", "build_ext", "--inplace", **variables)
    assert result.returncode != 0
    assert "could not be built and RRSIS_REQUIRE_EXT=1" in result.stderr


def test_source_distribution_has_all_that_a_build_needs(project):
    (project / "rrsis_kernels" / "_C.so").touch()
    (project / "rrsis_kernels" / "_build_status.json").touch()
    with tarfile.open(call_hook(project, "build_sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "setup.py",
        "LICENSE",
        "README.md",
        "build_backend/rrsis_build/__init__.py",
        "csrc/ops.cpp",
        "csrc/cpu/isa_avx2.cpp",
        "rrsis/__init__.py",
        "rrsis_kernels/schemas.txt",
        "rrsis_kernels/py.typed",
    } <= names
    assert not [name for name in names if name.endswith((".so", "_build_status.json"))]


def test_wheel_has_the_packages_and_nothing_else(project):
    with zipfile.ZipFile(call_hook(project, "build_wheel", RRSIS_SKIP_EXT="1")) as archive:
        names = set(archive.namelist())
        status = json.loads(archive.read("rrsis_kernels/_build_status.json"))
    assert {"rrsis/py.typed", "rrsis_kernels/py.typed", "rrsis_kernels/schemas.txt"} <= names
    folders = {name.split("/")[0] for name in names} - {"rrsis", "rrsis_kernels"}
    assert [folder.endswith(".dist-info") for folder in folders] == [True]
    assert f"{folders.pop()}/licenses/LICENSE" in names
    assert "RRSIS_SKIP_EXT=1" in status["files"]["_C"]["reason"]


def test_editable_install_puts_the_source_tree_on_the_path(project):
    """An import hook would not do: it is asked last, so a folder named rrsis beside the caller hides the package."""
    with zipfile.ZipFile(call_hook(project, "build_editable", RRSIS_SKIP_EXT="1")) as archive:
        names = [name for name in archive.namelist() if name.endswith((".py", ".pth"))]
        (path,) = [archive.read(name).decode().strip() for name in names]
    assert os.path.realpath(path) == os.path.realpath(project)
    assert (project / "rrsis_kernels" / "_build_status.json").exists()


@pytest.mark.parametrize("hook", ["get_requires_for_build_wheel", "get_requires_for_build_editable"])
def test_installed_torch_is_no_build_requirement(project, hook):
    result = run(project, "-c", f"import rrsis_build; print('NEEDS', rrsis_build.{hook}())")
    assert result.returncode == 0, result.stderr
    assert "torch" not in result.stdout.split("NEEDS")[1]
