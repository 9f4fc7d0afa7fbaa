"""Every kernel at every shipped configuration, compiled for each architecture without a GPU."""

import pytest

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


def test_faults_are_seen():
    from rrsis_kernels.triton import _compile
    from rrsis_kernels.triton._aot import AotSpec

    spec = AotSpec("a product", None, {}, {}, 4, 1, True, True)
    assert _compile.faults(spec, 90, _compile.Resources(100, 1000, 0, True)) == []
    assert _compile.faults(spec, 80, _compile.Resources(100, 163 * 1024, 0, False)) == []
    found = _compile.faults(spec, 90, _compile.Resources(255, 228 * 1024, 16, False))
    assert len(found) == 3
    assert all("sm_90 a product" in fault for fault in found)
