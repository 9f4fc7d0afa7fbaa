"""Nothing is measured unless it is asked for; then once, by Triton, with a clock and a launch of our own."""

import types

import pytest
import torch

from rrsis_kernels import triton as kernels

if not kernels.INSTALLED:
    pytest.skip("triton is not installed", allow_module_level=True)
if kernels.INTERPRETED:
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.runtime import autotuner

from rrsis_kernels.triton import _config, _launch
from rrsis_kernels.triton._products import combine_kernel

TABLE = (8, 1)
BEST = (4, 3)


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Warps and stages of every launch of a kernel that takes a second, half of that in its best configuration."""
    launches = []

    def launch(*values, num_warps, num_stages, **named):
        launches.append((num_warps, num_stages))

    def bench(call, **_):
        call()
        return [0.5 if launches[-1] == BEST else 1.0] * 3

    device = types.SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", 90, 32), get_benchmarker=lambda: bench)
    monkeypatch.setattr(autotuner, "driver", types.SimpleNamespace(active=device))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(combine_kernel, "run", launch)
    _launch._autotuned.cache_clear()
    yield launches
    _launch._autotuned.cache_clear()


def launch(**changed):
    given = dict.fromkeys(combine_kernel.arg_names) | {"partials": torch.empty(2), "splits": 3, "width": 12}
    given |= changed
    warps, stages = TABLE
    _launch.run(combine_kernel, (1,), given.pop("partials"), **given, warps=warps, stages=stages)


@pytest.mark.parametrize("value", [None, "0"])
def test_the_table_decides(launched, monkeypatch, value):
    monkeypatch.delenv(_config.AUTOTUNE_VARIABLE, raising=False)
    if value:
        monkeypatch.setenv(_config.AUTOTUNE_VARIABLE, value)
    launch()
    assert launched == [TABLE]


def test_the_fastest_is_found_once_and_kept_for_other_processes(launched, monkeypatch):
    monkeypatch.setenv(_config.AUTOTUNE_VARIABLE, "1")
    launch()
    assert launched == [*_launch.CANDIDATES, BEST]
    launched.clear()
    launch()
    assert launched == [BEST]
    _launch._autotuned.cache_clear()  # as another process would find it
    launch()
    assert launched == [BEST] * 2, "found again on disk"
    for changed in ({"width": 13}, {"rows": "ieee"}, {"rows": "tf32"}):
        launched.clear()
        launch(**changed)
        assert launched == [*_launch.CANDIDATES, BEST], "other sizes and precisions are measured for themselves"


def test_architectures(monkeypatch):
    capability = {}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability["is"])
    for capability["is"], due in (
        ((7, 5), 80),
        ((8, 0), 80),
        ((8, 9), 80),
        ((9, 0), 90),
        ((10, 3), 100),
        ((12, 0), 100),
    ):
        assert _config.architecture(torch.device("cuda", 0)) == due
    assert _config.architecture(torch.device("cpu")) in _config.ARCHITECTURES
    assert {*_config.TABLE} == {*_config.FUSED_TABLE} == {*_config.MEMORY_BOUND} == {*_config.ARCHITECTURES}
