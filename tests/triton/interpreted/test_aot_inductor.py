"""A package of AOTInductor calls the operators by name, so that whichever backend is forced runs them: Triton's too."""

import dataclasses

import pytest
import torch
from kernel_cases import OPS, Case, assert_accurate, correlation_case, mask_statistics_case, why_not

import rrsis_kernels
from rrsis_kernels import backends, use_backend


class AllOperators(torch.nn.Module):
    """Every operator once, one behind the other."""

    def forward(self, pixels, keys, values, token_mask, pixel_mask, logits, mask):
        out = rrsis_kernels.bidirectional_spatial_correlation(pixels, keys, values, None, token_mask, pixel_mask)
        gate = out.pixel_lse.mean(1)
        streams = rrsis_kernels.twin_stream_attention(out.painted, out.pooled, keys, gate, pixel_mask)
        cosine = rrsis_kernels.masked_cosine_loss(out.painted, pixels, pixel_mask)
        sums = rrsis_kernels.twin_mask_statistics(logits, -logits, mask)
        names = ("bce_joint", "probability_mask_sum", "intersection", "union")
        statistics = {name: getattr(sums, name) for name in names}
        return {"painted": out.painted, "cosine": cosine} | streams._asdict() | statistics


@dataclasses.dataclass(frozen=True)
class PackageCase(Case):
    """A call of the model: of its package, or on the reference of its Python code."""

    def run(self):
        model = AllOperators() if backends.forced_backend() == "reference" else self.options["package"]
        return model(*self.tensors.values())


def model_case(count):
    tensors = correlation_case((3, count, 16, 16, 2, 5), bias=False).tensors
    tensors.pop("key_bias")
    # A sample without a real pixel has a gate of −inf: that is another test's.
    tensors["token_mask"][0] = tensors["pixel_mask"][0] = True
    statistics = mask_statistics_case((3, 5, 6), (20, 23), valid=False).tensors
    tensors |= {"logits": statistics["target_logits"], "mask": statistics["mask"]}
    return PackageCase("all", tensors, ("pixels", "keys", "values", "logits"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The model compiled for any number of pixels."""
    case, count = model_case(40), torch.export.Dim("count", min=2, max=4096)
    dynamic = {name: {1: count} if name in ("pixels", "pixel_mask") else None for name in case.tensors}
    with use_backend("triton"):
        program = torch.export.export(AllOperators(), tuple(case.tensors.values()), dynamic_shapes=dynamic)
    path = torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(tmp_path_factory.mktemp("package") / "model.pt2"),
        inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},  # its own speed does not matter here
    )
    return torch._inductor.aoti_load_package(path)


def test_it_runs_the_kernels_that_are_forced(package, launched):
    for count in (40, 77):
        case = dataclasses.replace(model_case(count), options={"package": package})
        with use_backend("triton"):
            assert_accurate(case)
        assert {*launched} == {f"{op}.forward" for op in OPS}
        launched.clear()
        if why_not("cpu") is None:
            with use_backend("cpu"):
                assert_accurate(case)
            assert launched == []
