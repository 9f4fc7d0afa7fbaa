"""What the other tests of masked_cosine_loss do not reach: every width of its kernels, what is not read, its errors."""

import pytest
import torch
from kernel_cases import Case, assert_accurate, cosine_case

from rrsis_kernels import use_backend

HALF_AND_FLOAT = (torch.float32, torch.bfloat16, torch.float16)
ops = torch.ops.rrsis_kernels_emulated


@pytest.fixture(autouse=True)
def _forced():
    with use_backend("cuda"):
        yield


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT, ids=str)
@pytest.mark.parametrize("channels", [8, 31, 128, 129, 136, 512, 515, 1032])
def test_rows_of_one_tile_and_of_several(channels, dtype):
    """Whole packets or single elements, 8 or 32 lanes, rows that stay in registers or are read twice."""
    assert_accurate(cosine_case((2, 21, channels), dtype))


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT, ids=str)
@pytest.mark.parametrize("offset", [1, 4, 8])
@pytest.mark.parametrize("gap", [0, 1, 8])
def test_rows_on_any_address(dtype, offset, gap):
    """The same bits, whether rows can be read 16 bytes at a time or not."""
    case = cosine_case((2, 11, 40), dtype)
    shifted = {}
    for name in case.differentiable:
        memory = torch.full((offset + 2 * 11 * (40 + gap),), 77, dtype=dtype)
        shifted[name] = memory[offset:].view(2, 11, 40 + gap)[..., :40]
        shifted[name].copy_(case.tensors[name])
    strange = Case(case.op, case.tensors | shifted, case.differentiable)
    for name, due in case.run().items():
        assert torch.equal(strange.run()[name], due), name


def test_more_rows_than_a_block_counts():
    case = cosine_case((1, 16384 + 70, 2), share=0.01)
    assert_accurate(case)


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT, ids=str)
def test_rows_that_do_not_count_are_not_read(dtype):
    case = cosine_case((2, 70, 24), dtype)
    hidden = ~case.tensors["mask"]
    due = case.run()
    for name in case.differentiable:
        case.tensors[name][hidden] = torch.nan
    for name, value in case.run().items():
        assert torch.equal(value, due[name]), name


def arguments(**changed):
    x = torch.zeros(2, 5, 8)
    return tuple(({"prediction": x, "target": x, "mask": torch.ones(2, 5, dtype=torch.bool)} | changed).values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            dict.fromkeys(("prediction", "target"), torch.zeros(2, 5, 8).double()),
            "prediction has dtype Double, but the CUDA kernels take float32",
        ),
        ({"prediction": torch.zeros(2, 5)}, "prediction has 2 dimensions, but 3 were due"),
        ({"target": torch.zeros(2, 5, 7)}, r"target has shape \(2, 5, 7\), but dimension 2 should be 8"),
        ({"target": torch.zeros(2, 5, 8).half()}, "target has dtype Half, but Float was due"),
        ({"mask": torch.ones(2, 5)}, "mask has dtype Float, but Bool was due"),
    ],
)
def test_direct_calls_are_checked(changed, message):
    with pytest.raises(RuntimeError, match=message):
        ops.masked_cosine_forward(*arguments(**changed))
    with pytest.raises(RuntimeError, match=message):
        ops.masked_cosine_backward(torch.zeros(2), *arguments(**changed))
