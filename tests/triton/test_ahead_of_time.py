"""Every kernel at every shipped configuration, compiled for each architecture without a GPU."""

import re

import pytest
import torch

from rrsis_kernels import backends, triton

pytestmark = [
    pytest.mark.skipif(not triton.INSTALLED, reason="triton is not installed"),
    pytest.mark.skipif(triton.INTERPRETED, reason="kernels are interpreted in this process"),
]


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("op", backends.OPS)
def test_no_spills_and_within_the_limits(op, arch):
    from rrsis_kernels.triton import _compile

    specs = triton.module(op).aot_specs(arch)
    assert specs
    assert len({spec.name for spec in specs}) == len(specs), "names are not unique"
    wrong = []
    for spec in specs:
        needs = _compile.resources(_compile.compile_spec(spec, arch))
        assert needs.registers > 0
        wrong += _compile.faults(spec, arch, needs)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("op", ["bidirectional_spatial_correlation", "twin_stream_attention"])
def test_scores_are_stored_in_whole_vectors(op, arch):
    """Two bytes at a time took twice as long on an H200, the second-level cache being busy with parts of sectors."""
    from rrsis_kernels.triton import _compile

    storing = ("forward_scores_kernel", "forward_fused_kernel", "backward_scores_kernel", "backward_fused_kernel")
    specs = [spec for spec in triton.module(op).aot_specs(arch) if spec.kernel.__name__ in storing]
    specs = [spec for spec in specs if spec.name.startswith("bf16")]
    assert len({spec.kernel.__name__ for spec in specs}) >= 2
    for spec in specs:
        ptx = _compile.compile_spec(spec, arch).asm["ptx"]
        # Elsewhere the tiles are smaller: a thread has no eight numbers of a row.
        assert "st.global.v4.b32" in ptx or arch != 90, spec.name
        assert not re.search(r"st\.global\.[bu]16", ptx), spec.name


@pytest.fixture(params=["ieee", "tf32"])
def asked(request):
    """What PyTorch is told to use; monkeypatch cannot put this one back, for it is no ordinary attribute."""
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, request.param
    yield request.param
    matmul.fp32_precision = before


def test_products_are_in_tf32_only_where_pytorch_asks(asked):
    from rrsis_kernels.triton._launch import Launcher

    launch = Launcher(torch.device("cpu"))
    assert launch.precision(torch.float32) == asked
    assert launch.precision(torch.bfloat16) == launch.precision(torch.float16) == "ieee"


@pytest.mark.parametrize("op", ["bidirectional_spatial_correlation", "twin_stream_attention"])
def test_both_precisions_are_compiled_whatever_this_process_asks(asked, op):
    kinds = {"tf32": "tf32", "fp32": "ieee", "bf16": "ieee", "fp16": "ieee"}
    products = [spec for spec in triton.module(op).aot_specs(90) if spec.has_product]
    assert {spec.constexprs["PRECISION"] for spec in products} == {"ieee", "tf32"}
    assert all(spec.constexprs["PRECISION"] == kinds[spec.name.split()[0]] for spec in products)
    assert all(spec.expects_wgmma == (not spec.name.startswith("fp32")) for spec in products)


def test_faults_are_seen():
    from rrsis_kernels.triton import _compile
    from rrsis_kernels.triton._aot import AotSpec

    spec = AotSpec("a product", None, {}, {}, 4, 1, True, True)
    assert _compile.faults(spec, 90, _compile.Resources(100, 1000, 0, True)) == []
    assert _compile.faults(spec, 80, _compile.Resources(100, 163 * 1024, 0, False)) == []
    found = _compile.faults(spec, 90, _compile.Resources(255, 228 * 1024, 16, False))
    assert len(found) == 3
    assert all("sm_90 a product" in fault for fault in found)


def test_a_kernel_that_was_measured_may_spill_as_much_as_then():
    from rrsis_kernels.triton import _compile, _config
    from rrsis_kernels.triton._aot import AotSpec

    def combine_kernel():
        """Only its name counts."""

    spec = AotSpec("a sum", combine_kernel, {}, {}, 4, 1, False, False)
    most = _config.MEASURED_SPILLS[90]["combine_kernel"]
    assert _compile.faults(spec, 90, _compile.Resources(100, 1000, most, False)) == []
    assert len(_compile.faults(spec, 90, _compile.Resources(100, 1000, most + 1, False))) == 1
    assert len(_compile.faults(spec, 80, _compile.Resources(100, 1000, most, False))) == 1
