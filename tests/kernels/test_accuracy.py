"""Every operator's outputs and gradients against fp64, on every instruction set that this machine has."""

import ctypes
import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    DTYPES,
    GPU_BACKENDS,
    OPS,
    PRODUCTS,
    Case,
    assert_accurate,
    correlation_case,
    cosine_case,
    many,
    mask_statistics_case,
    poison_allocations,
    small_case,
    twin_stream_case,
)

from rrsis_kernels import backends, triton

# More channels than fused kernels keep. Triton's interpreter takes longer with every block of channels; 160 are more
# than one block of each kernel, the last of the widest not full.
WIDE = 160 if triton.INTERPRETED else 512
# B, N, C, D, H, L: smaller than a vector; odd everywhere; the tiny model; many rows; more than one chunk; wide.
CORRELATIONS = [
    (2, 3, 2, 3, 1, 2),
    (2, 37, 17, 13, 3, 7),
    (2, 64, 96, 96, 4, 12),
    (1, 225, 40, 48, 8, 21),
    (2, many(1601), 24, 16, 2, 20),
    (1, 70, WIDE, WIDE, 4, 20),
]
# B, N, C, H, K
STREAMS = [
    (2, 3, 2, 1, 1),
    (2, 37, 17, 3, 5),
    (2, 256, 64, 4, 4),
    (2, many(1601), 24, 2, 8),
    (1, 70, min(WIDE, 256), 8, 8),
]
# logits, mask: enlarged 4 and odd times, made smaller, of the same size, a single logit, wide rows.
MAPS = [
    ((2, 8, 8), (32, 32)),
    ((2, 5, 7), (23, 38)),
    ((2, 20, 30), (9, 7)),
    ((2, 13, 21), (13, 21)),
    ((2, 1, 1), (5, 6)),
    ((1, 30, 40), (240, 321)),
]
ROWS = [(2, 3, 2), (2, 37, 17), (3, 400, 96), (2, many(2500), 24)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("direction", ["both", "paint", "pool"])
@pytest.mark.parametrize("shape", CORRELATIONS, ids=str)
def test_correlation(kernel, shape, direction, dtype):
    case = correlation_case(shape, dtype, direction=direction)
    assert_accurate(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sharpness", [0.0, 20.0])
@pytest.mark.parametrize(("bias", "masks"), [(False, False), (True, False), (False, True)])
def test_correlation_flat_and_sharp(kernel, dtype, sharpness, bias, masks):
    case = correlation_case((2, 133, 33, 20, 2, 9), dtype, bias=bias, masks=masks, sharpness=sharpness)
    assert_accurate(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ["rising", "falling"])
@pytest.mark.parametrize("hidden", [False, True])
def test_correlation_whose_scores_change_from_tile_to_tile(kernel, dtype, order, hidden):
    """Scores from close together to far apart along the pixels; what a mask hides is larger than everything else."""
    count = many(1500)
    case = correlation_case((2, count, 16, 8, 2, 5), dtype, masks=False)
    scale = torch.linspace(0.1, 60.0, count).flip(0 if order == "falling" else ())
    pixels = case.tensors["pixels"] * scale[:, None].to(dtype)
    tensors = {"pixels": pixels}
    if hidden:
        pixel_mask, token_mask = torch.ones(2, count, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
        pixel_mask[0, count // 5 : 11 * count // 15] = pixel_mask[1, ::2] = token_mask[:, 2] = False
        pixels[~pixel_mask] *= 100
        tensors |= {"pixel_mask": pixel_mask, "token_mask": token_mask}
    assert_accurate(dataclasses.replace(case, tensors=case.tensors | tensors))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", STREAMS, ids=str)
def test_twin_stream(kernel, shape, dtype):
    case = twin_stream_case(shape, dtype, gate=dtype)
    assert_accurate(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sharpness", [0.0, 20.0])
@pytest.mark.parametrize(("gate", "masks"), [(None, False), (torch.float32, False), (None, True)])
def test_twin_stream_flat_and_sharp(kernel, dtype, sharpness, gate, masks):
    case = twin_stream_case((2, 133, 33, 2, 5), dtype, gate=gate, masks=masks, sharpness=sharpness)
    assert_accurate(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("logits", "size"), MAPS, ids=str)
def test_mask_statistics(kernel, logits, size, dtype):
    case = mask_statistics_case(logits, size, dtype)
    assert_accurate(case)


@pytest.mark.parametrize("mask", [torch.uint8, *DTYPES], ids=str)
@pytest.mark.parametrize("valid", [True, False])
def test_mask_statistics_of_each_kind_of_mask(kernel, mask, valid):
    case = mask_statistics_case((2, 6, 5), (21, 18), mask=mask, valid=valid, joint_scale=1.0)
    assert_accurate(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_masked_cosine(kernel, shape, dtype):
    case = cosine_case(shape, dtype)
    assert_accurate(case)


@pytest.mark.parametrize("op", OPS)
def test_gradcheck(implementation, op):
    case = small_case(op, torch.float64)
    names = [name for name in case.differentiable if case.tensors[name] is not None]
    leaves = [case.tensors[name].clone().requires_grad_() for name in names]
    if op == "masked_cosine_loss":  # a row of zeros is a kink
        leaves[0].data[-1, 0] = 1.0

    def call(*values):
        outputs = Case(op, case.tensors | dict(zip(names, values, strict=True)), (), case.options)()
        # An lse of −inf has no finite difference.
        return [output.masked_fill(output == -torch.inf, 0) for output in outputs.values() if output.requires_grad]

    assert torch.autograd.gradcheck(call, leaves, atol=1e-7)


def test_allocations_are_poisoned():
    """What the kernels' allocations give before they are written: otherwise a buffer left out could pass by chance."""
    if not poison_allocations(True):
        pytest.skip("this C library's malloc cannot fill memory")
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    size, stride, handle, data = ctypes.c_int64(1000), ctypes.c_int64(1), ctypes.c_void_p(), ctypes.c_void_p()
    float32 = library.aoti_torch_dtype_float32()
    for _ in range(3):
        place = (float32, library.aoti_torch_device_type_cpu(), 0)
        assert (
            library.aoti_torch_empty_strided(
                ctypes.c_int64(1),
                ctypes.byref(size),
                ctypes.byref(stride),
                *map(ctypes.c_int32, place),
                ctypes.byref(handle),
            )
            == 0
        )
        library.aoti_torch_get_data_ptr(handle, ctypes.byref(data))
        values = torch.frombuffer((ctypes.c_float * 1000).from_address(data.value), dtype=torch.float32)
        assert values.isnan().all()
        library.aoti_torch_delete_tensor_object(handle)


def _strided(draw, tensor):
    """The tensor's values in another layout: as it is, transposed, a slice of something larger, or misaligned."""
    kind = draw(st.sampled_from(["plain", "transposed", "sliced", "offset"]))
    if tensor is None or tensor.dim() < 2 or kind == "plain":
        return tensor
    if kind == "transposed":
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    if kind == "sliced":
        padded = torch.full([size + 3 for size in tensor.shape], 77, dtype=tensor.dtype)
        view = padded[tuple(slice(1, 1 + size) for size in tensor.shape)]
    else:
        view = torch.full((tensor.numel() + 1,), 77, dtype=tensor.dtype)[1:].view(tensor.shape)
    view.copy_(tensor)
    return view


def _dtypes(op):
    """What the kernels take, and where they are interpreted, compute rightly."""
    forced = backends.forced_backend()
    if forced not in GPU_BACKENDS:
        return DTYPES
    interpreted_product = forced == "triton" and triton.INTERPRETED and op in PRODUCTS
    return (torch.float32, torch.float16) if interpreted_product else (torch.float32, torch.bfloat16, torch.float16)


def _pools_one_pixel(case):
    """Whether some pool is constant, and its gradient nothing but rounding."""
    if "pixels" not in case.tensors or case.options.get("direction") in ("both", "paint"):
        return False
    mask = case.tensors["pixel_mask"]
    return case.tensors["pixels"].shape[1] == 1 if mask is None else bool((mask.sum(1) == 1).any())


@st.composite
def _cases(draw, op):
    size = st.integers(0, 3)
    dtype = draw(st.sampled_from(_dtypes(op)))
    options = {"seed": draw(st.integers(0, 999))}
    batch, pixels, channels = draw(size), draw(st.integers(0, 40)), draw(st.integers(1, 20))
    if op == "bidirectional_spatial_correlation":
        shape = (batch, pixels, channels, draw(st.integers(1, 20)), draw(st.integers(1, 3)), draw(st.integers(0, 9)))
        options |= {"bias": draw(st.booleans()), "masks": draw(st.booleans())}
        case = correlation_case(shape, dtype, direction=draw(st.sampled_from(["both", "paint", "pool"])), **options)
    elif op == "twin_stream_attention":
        shape = (batch, pixels, channels, draw(st.integers(1, 3)), draw(st.integers(0, 5)))
        gate = draw(st.sampled_from([None, dtype, torch.float32]))
        case = twin_stream_case(shape, dtype, gate=gate, masks=draw(st.booleans()), **options)
    elif op == "twin_mask_statistics":
        logits = (batch, draw(st.integers(1, 9)), draw(st.integers(1, 9)))
        mask = draw(st.sampled_from([torch.bool, torch.uint8, torch.float32]))
        extent = draw(st.integers(0, 30)), draw(st.integers(0, 30))
        case = mask_statistics_case(logits, extent, dtype, mask=mask, valid=draw(st.booleans()), **options)
    else:  # with one channel the loss is constant, its gradient nothing but rounding
        case = cosine_case((batch, pixels, channels + 1), dtype, **options)
    assume(backends.forced_backend() not in GPU_BACKENDS or not _pools_one_pixel(case))
    tensors = {name: _strided(draw, tensor) for name, tensor in case.tensors.items()}
    return Case(case.op, tensors, case.differentiable, case.options)


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=30)
@given(data=st.data())
def test_any_shape_stride_mask_and_dtype(kernel, op, data):
    case = data.draw(_cases(op))
    assert_accurate(case)
