"""The table of configurations, and measuring instead of looking up, with a clock of our own."""

import pytest
import torch

from rrsis_kernels import triton

if not triton.INSTALLED:
    pytest.skip("triton is not installed", allow_module_level=True)
if triton.INTERPRETED:
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

from rrsis_kernels.triton import _config, _tuning
from rrsis_kernels.triton._tuning import Config

TABLE = {80: Config(128, 4), 90: Config(256, 8)}
DEVICE = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU whose kernels take as many milliseconds as their tile is far from 512 elements."""
    monkeypatch.setenv(_tuning.CACHE_VARIABLE, str(tmp_path / "deep" / "autotune.json"))
    monkeypatch.setattr(_tuning, "architecture", lambda device: 90)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(_tuning.triton.testing, "do_bench", lambda call, **options: call())
    _tuning._cache.cache_clear()
    yield tmp_path
    _tuning._cache.cache_clear()


def test_table():
    assert _tuning.from_table(TABLE, 80) == TABLE[80]
    assert _tuning.from_table(TABLE, 89) == TABLE[80]
    assert _tuning.from_table(TABLE, 120) == TABLE[90]
    assert _tuning.from_table(TABLE, 75) == TABLE[80]


def test_nothing_is_measured_unless_it_is_asked_for(gpu, monkeypatch):
    monkeypatch.delenv(_config.AUTOTUNE_VARIABLE, raising=False)
    assert _tuning.configure("kernel", TABLE, DEVICE, (1,), pytest.fail) == TABLE[90]


def test_the_fastest_is_kept_in_a_file(gpu, monkeypatch):
    monkeypatch.setenv(_config.AUTOTUNE_VARIABLE, "1")
    tried = []

    def launch(config):
        tried.append(config)
        return abs(config.elements - 512) + config.num_warps

    for _ in range(2):
        assert _tuning.configure("kernel", TABLE, DEVICE, (1, torch.float16), launch) == Config(512, 4)
    assert sorted(tried) == sorted(_tuning.neighbours(TABLE[90])), "each is tried once"
    _tuning._cache.cache_clear()  # as another process would find it
    assert _tuning.configure("kernel", TABLE, DEVICE, (1, torch.float16), pytest.fail) == Config(512, 4)
    _tuning.configure("kernel", TABLE, DEVICE, (2, torch.float16), launch)
    assert len(tried) == 2 * len(_tuning.neighbours(TABLE[90])), "another shape is measured for itself"


def test_nothing_is_measured_during_a_capture(gpu, monkeypatch):
    monkeypatch.setenv(_config.AUTOTUNE_VARIABLE, "1")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert _tuning.configure("kernel", TABLE, DEVICE, (1,), pytest.fail) == TABLE[90]


def test_a_configuration_that_does_not_fit_is_passed_over(gpu):
    def launch(config):
        if config.elements > 256:
            raise _tuning.triton.OutOfResources(1, 0, "shared memory")
        return config.elements

    assert _tuning.fastest(_tuning.neighbours(TABLE[90]), launch).elements == 128
