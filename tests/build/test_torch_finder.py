import sys
import sysconfig
from pathlib import Path

import pytest
import rrsis_build
import torch
from rrsis_build import torch_finder

VERSION_FILE = """\
from typing import Optional

__all__ = ["__version__", "cuda"]
__version__ = "{version}"
debug = False
cuda: Optional[str] = {cuda!r}
"""


def make_torch(folder: Path, version: str, cuda: str | None = None) -> Path:
    root = folder / "torch"
    for name in ("include/torch/csrc/stable/library.h", "lib/libtorch_cpu.so"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "version.py").write_text(VERSION_FILE.format(version=version, cuda=cuda))
    return root


def test_reads_version_and_cuda_without_importing(tmp_path):
    make_torch(tmp_path, "2.15.0+cu132", "13.2")
    install = torch_finder.find_torch(folders=[tmp_path])
    assert (install.version, install.cuda) == ("2.15.0+cu132", "13.2")
    assert install.root == tmp_path / "torch"


def test_a_cpu_build_has_no_cuda(tmp_path):
    make_torch(tmp_path, "2.13.0+cpu")
    assert torch_finder.find_torch(folders=[tmp_path]).cuda is None


def test_skips_what_is_too_old_or_incomplete(tmp_path):
    make_torch(tmp_path / "old", "2.10.1")
    headless = make_torch(tmp_path / "headless", "2.14.0")
    (headless / "include/torch/csrc/stable/library.h").unlink()
    broken = make_torch(tmp_path / "broken", "2.14.0")
    (broken / "version.py").write_text("__version__ = (")
    make_torch(tmp_path / "good", "2.11.0a0+git1234567")
    names = ["empty", "old", "headless", "broken", "good"]
    found = torch_finder.find_torch(folders=[tmp_path / name for name in names])
    assert found.root == tmp_path / "good" / "torch"
    assert torch_finder.find_torch(folders=[tmp_path / name for name in names[:-1]]) is None


def test_double_digit_minor_versions_are_newer():
    assert torch_finder.parse_version("2.9.1") < torch_finder.MINIMUM_VERSION <= torch_finder.parse_version("2.11")
    with pytest.raises(ValueError, match="version"):
        torch_finder.parse_version("unknown")


def test_finds_the_environment_from_inside_an_isolated_build(tmp_path, monkeypatch):
    """pip's build environment replaces sys.path; sysconfig still names the environment that pip installs into."""
    expected = torch_finder.find_torch()
    assert expected.version == torch.__version__
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if Path(torch.__file__).parents[1] != Path(sysconfig.get_path("purelib")):
        pytest.skip("the torch of this run is not in the environment's own site-packages")
    assert torch_finder.find_torch().root == expected.root


def test_finds_the_activated_environment(tmp_path, monkeypatch):
    """`python -m build` and uv isolate with an environment of their own and leave VIRTUAL_ENV as it was."""
    environment = {"base": str(tmp_path), "platbase": str(tmp_path)}
    site_packages = Path(sysconfig.get_path("purelib", "posix_prefix", vars=environment))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert site_packages in torch_finder.candidate_folders()


@pytest.mark.parametrize(("setting", "seen"), [("true", True), ("false", False)])
def test_system_packages_of_a_virtual_environment(tmp_path, setting, seen):
    (tmp_path / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = {setting}\n")
    assert torch_finder._sees_system_packages(tmp_path) is seen


def test_torch_is_a_build_requirement_only_where_there_is_none(monkeypatch):
    monkeypatch.delenv("RRSIS_SKIP_EXT", raising=False)
    assert rrsis_build.torch_requirement() == []
    monkeypatch.setattr(rrsis_build, "find_torch", lambda: None)
    assert rrsis_build.torch_requirement() == ["torch>=2.11"]
    monkeypatch.setenv("RRSIS_SKIP_EXT", "1")
    assert rrsis_build.torch_requirement() == []
