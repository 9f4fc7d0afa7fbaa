import shutil

import pytest
from fake_tools import script, toolkit
from rrsis_build import plan, toolchain
from rrsis_build.toolchain import CannotBuildError, CudaCompiler
from rrsis_build.torch_finder import TorchInstall


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    with pytest.raises(CannotBuildError, match="/nonexistent/c\\+\\+ not found"):
        toolchain.find_cxx()


def test_a_failing_compiler_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(script(tmp_path / "cxx", "echo 'cxx: error: no licence' >&2; exit 1")))
    with pytest.raises(CannotBuildError, match="cxx: error: no licence"):
        toolchain.find_cxx()


def test_cxx_may_carry_arguments(monkeypatch):
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler here")
    monkeypatch.setenv("CXX", f"{compiler} -O1")
    assert toolchain.find_cxx().command == (compiler, "-O1")


def test_nvcc_is_found_and_asked_for_its_version(tmp_path, monkeypatch):
    toolkit(tmp_path)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    nvcc = toolchain.find_nvcc()
    assert (nvcc.version, nvcc.home, nvcc.library_dirs) == ("13.1", tmp_path, [tmp_path / "lib64"])
    assert nvcc.include_dirs == [tmp_path / "include"]


@pytest.mark.parametrize(("version", "old"), [("11.8", True), ("12.0", False)])
def test_an_nvcc_that_is_too_old_is_named(tmp_path, monkeypatch, version, old):
    toolkit(tmp_path, version)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    if old:
        with pytest.raises(CannotBuildError, match=r"nvcc 11\.8 \(.*\) is too old: the kernels need 12\.0 or later"):
            toolchain.find_nvcc()
    else:
        assert toolchain.find_nvcc().version == version


@pytest.mark.parametrize(("nvcc", "newest"), [("12.6", "9.0"), ("12.8", "10.0"), ("13.0", "10.0")])
def test_default_architectures_are_those_that_nvcc_knows(tmp_path, monkeypatch, nvcc, newest):
    compiler = CudaCompiler(tmp_path / "nvcc", tmp_path, nvcc)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert plan.cuda_architectures(compiler) == f"8.0;9.0a;{newest}+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    assert plan.cuda_architectures(compiler) == "7.5"


def test_a_script_that_starts_nvcc_is_no_toolkit(tmp_path, monkeypatch):
    """Its folder has neither headers nor libraries, so a link would fail."""
    script(tmp_path / "bin" / "nvcc", f"exec {toolkit(tmp_path / 'cuda')} $@")
    assert not toolchain._is_toolkit(tmp_path)
    assert toolchain._is_toolkit(tmp_path / "cuda")


def test_a_missing_nvcc_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    with pytest.raises(CannotBuildError, match="nvcc and its headers not found"):
        toolchain.find_nvcc()


@pytest.mark.parametrize(
    ("nvcc", "cuda", "reason"),
    [
        ("13.0", None, "build without CUDA"),
        ("12.8", "13.0", "differ in their major version"),
        ("13.0", "13.2", "no libtorch_cuda.so"),
    ],
)
def test_cuda_versions_must_match(tmp_path, nvcc, cuda, reason):
    compiler = CudaCompiler(tmp_path / "bin" / "nvcc", tmp_path, nvcc)
    with pytest.raises(CannotBuildError, match=reason):
        toolchain.require_matching_cuda(compiler, TorchInstall(tmp_path, "2.15.0", cuda))


def test_minor_versions_of_cuda_are_compatible(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libtorch_cuda.so").touch()
    compiler = CudaCompiler(tmp_path / "bin" / "nvcc", tmp_path, "13.0")
    torch_13_2, torch_12_8 = (TorchInstall(tmp_path, "2.15.0", cuda) for cuda in ("13.2", "12.8"))
    assert toolchain.require_matching_cuda(compiler, torch_13_2) is None  # nothing raised, where 12.8 is refused
    with pytest.raises(CannotBuildError, match="differ in their major version"):
        toolchain.require_matching_cuda(compiler, torch_12_8)


@pytest.mark.parametrize("separator", [";", " ", ", "])
def test_cuda_architectures(separator):
    flags = toolchain.cuda_architecture_flags(separator.join(["8.0", "9.0a", "10.0+PTX"]))
    assert flags == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_100,code=sm_100",
        "-gencode=arch=compute_100,code=compute_100",
    ]


@pytest.mark.parametrize("text", ["", "Hopper", "9.0+SASS", "90"])
def test_unreadable_cuda_architectures_are_named(text):
    with pytest.raises(CannotBuildError, match="TORCH_CUDA_ARCH_LIST"):
        toolchain.cuda_architecture_flags(text)


def test_other_processors_get_the_baseline_alone():
    assert list(plan.isa_flags("aarch64")) == ["baseline"]
    assert list(plan.isa_flags("x86_64")) == ["baseline", "avx2", "avx512", "avx512bf16"]
