"""The operators as a kernel of the Hugging Face Hub: build.toml, and the layout that `kernels` loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rrsis_build import plan

from rrsis_kernels import library

kernels = pytest.importorskip("kernels")
tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "build_hub_kernel.py"

LOAD = """
import sys
from pathlib import Path
{before}
import kernels
import torch

loaded = kernels.get_local_kernel(Path(sys.argv[1]), backend="cpu")
"""

USE = """
assert loaded.__name__ == "rrsis_kernels"
folder = Path(loaded.__file__).parent
assert folder.parent == Path(sys.argv[1], "build"), folder
assert all(Path(module.__file__).is_relative_to(folder)
           for name, module in sys.modules.items() if name.split(".")[0] == "rrsis_kernels")
status = sys.modules["rrsis_kernels.library"].extension_status()
assert status["_C"].loaded and Path(status["_C"].path).parent == folder, status

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
    result = python(LOAD.format(before="") + USE, hub, folder=tmp_path)
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
    assert {name: flags for name, flags in named["cpu"].items() if name.endswith(".cpp")} == cpu
    tree = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert named["cpu"].keys() | named["cuda"].keys() == tree - {"csrc/build_info.cpp"}
    abi = {tuple(map(int, version.split("."))) for version in recipe["torch"]["stable-abi"].values()}
    target = int(plan.TORCH_TARGET_VERSION, 16).to_bytes(8, "big")
    assert abi == {(target[0], target[1])}
