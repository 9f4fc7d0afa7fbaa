"""The operators as a kernel of the Hugging Face Hub: build.toml, and the layout that `kernels` loads."""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rrsis_build import plan, torch_finder

from rrsis_kernels import library

kernels = pytest.importorskip("kernels")
tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "build_hub_kernel.py"
PROJECT_SCRIPT = ROOT / "scripts" / "hub_kernel_project.py"

LOAD = """
import sys
from pathlib import Path
{before}
import kernels
import torch

loaded = kernels.get_local_kernel(Path(sys.argv[1]), backend="cpu")
"""

FROM_THE_FOLDER = """
assert loaded.__name__ == "rrsis_kernels"
folder = Path(loaded.__file__).parent
assert folder.parent == Path(sys.argv[1], "build"), folder
assert all(Path(module.__file__).is_relative_to(folder)
           for name, module in sys.modules.items() if name.split(".")[0] == "rrsis_kernels")
status = sys.modules["rrsis_kernels.library"].extension_status()
assert status["_C"].loaded and Path(status["_C"].path).parent == folder, status
"""

BESIDE = """
library = sys.modules[f"{loaded.__name__}.library"]
assert library.NAMESPACE == loaded.__name__ == "_rrsis_kernels_cpu_abc"
status = library.extension_status()
assert status["_C"].loaded and not status["_C_cuda"].loaded, status
assert loaded.masked_cosine_loss is not installed.masked_cosine_loss
"""

CALLS = """
torch.manual_seed(0)
pixels, keys, gate = torch.randn(2, 50, 8), torch.randn(2, 3, 4, 8), torch.randn(2, 50)
maps, mask = torch.randn(2, 2, 5, 6), torch.rand(2, 10, 12) > 0.5
calls = {
    "bidirectional_spatial_correlation": (pixels, keys, torch.randn(2, 3, 4, 6)),
    "twin_stream_attention": (pixels, keys, torch.randn(2, 3, 4, 8), gate),
    "twin_mask_statistics": (maps[0], maps[1], mask),
    "masked_cosine_loss": (pixels, torch.randn(2, 50, 8), torch.rand(2, 50) > 0.5),
}
for name, arguments in calls.items():
    results = {}
    for backend in ("cpu", "reference"):
        with loaded.use_backend(backend):
            results[backend] = getattr(loaded, name)(*arguments)
    torch.testing.assert_close(tuple(results["cpu"]), tuple(results["reference"]), msg=lambda text: f"{name}: {text}")
    print(name)
"""

REGISTRATION = """// What the header that kernel-builder adds to a project defines.
#pragma once
#include <Python.h>
#define STABLE_TORCH_LIBRARY_EXPAND(name, m) STABLE_TORCH_LIBRARY(name, m)
#define STABLE_TORCH_LIBRARY_IMPL_EXPAND(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)
#define INIT_OF(name) PyInit_##name
#define TEXT_OF(name) #name
#define DEFINE_MODULE(name)                                                                              \\
  PyMODINIT_FUNC INIT_OF(name)() {                                                                       \\
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, TEXT_OF(name), nullptr, 0, nullptr};      \\
    return PyModule_Create(&module);                                                                     \\
  }
#define REGISTER_EXTENSION(name) DEFINE_MODULE(name)
"""


def python(code, *arguments, folder, path=None):
    """Runs code in a process of its own, away from this tree."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    if not library.extension_status()["_C"].loaded:
        pytest.skip(f"nothing to lay out: {library.extension_status()['_C'].reason}")
    folder = tmp_path_factory.mktemp("hub")
    result = subprocess.run(
        [sys.executable, SCRIPT, "--out", folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_a_local_build_is_loaded_and_all_four_operators_run(hub, tmp_path):
    result = python(LOAD.format(before="") + FROM_THE_FOLDER + CALLS, hub, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 4


def test_beside_the_installed_package_it_is_that_package(hub, tmp_path):
    code = LOAD.format(before="import rrsis_kernels as installed") + (
        "assert loaded.masked_cosine_loss is installed.masked_cosine_loss\n"
        "print(loaded.masked_cosine_loss(*torch.ones(2, 1, 3, 4), torch.ones(1, 3, dtype=torch.bool)).item())"
    )
    result = python(code, hub, folder=tmp_path, path=ROOT)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(0, abs=1e-6)


def test_metadata_and_files_are_what_kernels_expects(hub):
    from kernels._rust import Digest, DigestAlgorithm, Metadata

    variants = sorted((hub / "build").iterdir())
    assert [variant.name.split("-")[3][:2] for variant in variants] == ["cp", "cu"][: len(variants)]
    for variant in variants:
        metadata = Metadata.read_from_file(variant / "metadata.json")
        assert metadata.id == library.NAMESPACE, "the namespace of the torch operators"
        assert str(metadata.kernels_minver) == "0.17.0"
        metadata.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
        assert not [path for path in variant.rglob("*") if path.is_symlink()]
        assert (variant / "_C_cuda.so").exists() == ("-cu" in variant.name)


def test_a_package_that_is_not_built_is_not_laid_out(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
from pathlib import Path
import build_hub_kernel
build_hub_kernel.lay_out(Path("out"), Path("package"))
"""
    result = python(code, folder=tmp_path)
    assert "FileNotFoundError: package/_C.so: not built (pip install -e .)" in result.stderr
    assert not list(tmp_path.iterdir())


def test_build_toml_follows_the_format_of_the_installed_kernels():
    from kernels._rust import Backend, Build

    assert Build.open(ROOT).general.backends == [Backend.CPU, Backend.CUDA]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "hub"
    result = subprocess.run(
        [sys.executable, PROJECT_SCRIPT, "--out", folder], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_the_builders_project_holds_what_build_toml_names(project):
    from kernels._rust import Backend, Build

    assert Build.open(project).general.backends == [Backend.CPU, Backend.CUDA]
    recipe = tomllib.loads((project / "build.toml").read_text(encoding="utf-8"))
    for part in [recipe["torch"], *recipe["kernel"].values()]:
        assert not [source for source in part["src"] if not (project / source).is_file()]


def test_the_builders_project_compiles_and_lives_beside_the_installed_package(project, tmp_path):
    """What kernel-builder's CMake files do, by hand: the library, its module of operators, a variant's folder."""
    if not library.extension_status()["_C"].loaded:
        pytest.skip(f"the project's sources would not compile here either: {library.extension_status()['_C'].reason}")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("Python's headers are not installed")
    name = "_rrsis_kernels_cpu_abc"
    variant = tmp_path / "hub" / "build" / f"torch-stable-abi211-cpu-{platform.machine()}-{platform.system().lower()}"
    shutil.copytree(project / "torch-ext" / "rrsis_kernels", variant)
    shutil.copy(project / "build.toml", tmp_path / "hub")
    (variant / "_ops.py").write_text(
        f"import torch\nfrom . import {name}\nops = torch.ops.{name}\n\n\n"
        f"def add_op_namespace_prefix(op_name):\n    return f'{name}::{{op_name}}'\n"
    )
    about = {"name": "rrsis-kernels", "id": name, "version": 0, "license": "Apache-2.0", "python-depends": []}
    (variant / "metadata.json").write_text(json.dumps({**about, "backend": {"type": "cpu"}}))
    objects = compile_module(project, name, variant / f"{name}.abi3.so")
    assert_no_symbol_is_shared(path for path in objects if path.name.startswith("isa_"))
    code = LOAD.format(before="import rrsis_kernels as installed") + BESIDE + CALLS
    result = python(code, tmp_path / "hub", folder=tmp_path, path=ROOT)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 4


def compile_module(project, name, output):
    """Compiles build.toml's sources for the CPU, with the header that kernel-builder adds."""
    (project / "torch-ext" / "registration.h").write_text(REGISTRATION)
    recipe = tomllib.loads((project / "build.toml").read_text(encoding="utf-8"))
    parts = [recipe["torch"], *(part for part in recipe["kernel"].values() if part["backend"] == "cpu")]
    torch = torch_finder.find_torch()
    include = [f"-I{project / folder}" for folder in recipe["torch"]["include"]]
    include += [f"-isystem{torch.include_dir}", f"-isystem{sysconfig.get_path('include')}"]
    defines = [f"-DTORCH_EXTENSION_NAME={name}", f"-DTORCH_TARGET_VERSION={plan.TORCH_TARGET_VERSION}", "-DCPU_KERNEL"]
    jobs, objects = [], []
    for part in parts:
        for source in (source for source in part["src"] if source.endswith(".cpp")):
            objects.append(project / f"{Path(source).stem}.o")
            flags = ["-O3", "-fPIC", *part["cxx-flags"], *include, *defines]
            jobs.append(["c++", *flags, "-c", project / source, "-o", objects[-1]])
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda job: subprocess.run(job, capture_output=True, text=True, check=False), jobs):
            assert done.returncode == 0, done.stderr
    link = ["c++", "-shared", *objects, f"-L{torch.library_dir}", "-ltorch_cpu", "-o", output]
    done = subprocess.run(link, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return objects


def assert_no_symbol_is_shared(objects):
    """Plain machines must not meet an AVX-512 copy of an inline function; kernel-builder links in any order."""
    for path in objects:
        symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
        kinds = [line.split()[-2] for line in symbols]
        assert "T" in kinds, path
        assert not {"W", "V", "u"} & set(kinds), path


def test_build_toml_names_the_sources_and_flags_of_our_own_build():
    recipe = tomllib.loads((ROOT / "build.toml").read_text(encoding="utf-8"))
    parts = recipe["kernel"].values()
    named = {
        backend: {
            source: tuple(part.get("cxx-flags", ()))
            for part in [{"src": recipe["torch"]["src"]}, *(part for part in parts if part["backend"] == backend)]
            for source in part["src"]
        }
        for backend in ("cpu", "cuda")
    }
    places = plan.Places(ROOT, ROOT / "build")
    cpu = {str(source.relative_to(ROOT)): flags for source, flags in plan.cpu_sources(places)}
    # What the per-file flags do not have to repeat in our own build.
    common = ("-std=c++20", "-fno-math-errno", "-fvisibility=hidden")
    assert set(common) < set(plan.CXX_FLAGS)
    of_isa = {
        name: tuple(flag for flag in flags if flag not in common)
        for name, flags in named["cpu"].items()
        if name.endswith(".cpp")
    }
    assert of_isa == cpu
    tree = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert named["cpu"].keys() | named["cuda"].keys() == tree - {"csrc/build_info.cpp"}
    abi = {tuple(map(int, version.split("."))) for version in recipe["torch"]["stable-abi"].values()}
    target = int(plan.TORCH_TARGET_VERSION, 16).to_bytes(8, "big")
    assert abi == {(target[0], target[1])}
