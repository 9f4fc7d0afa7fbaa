"""The C++ operators called directly: instruction sets, thread counts, tile and chunk borders, NaN, strides, extremes.

tests/kernels holds the operators to the reference through the public functions, on small problems; here are the shapes
at which the kernels split their work, and what only they can get wrong.
"""

import os
import subprocess
import sys

import pytest
import torch

import rrsis_kernels.library as library
from rrsis_kernels import reference

ops = torch.ops.rrsis_kernels
pytestmark = pytest.mark.skipif(
    not library.extension_status()["_C"].loaded, reason=f"no C++ kernels: {library.extension_status()['_C'].reason}"
)
LEVELS = ("baseline", "avx2", "avx512", "avx512bf16")


@pytest.fixture(params=range(len(LEVELS)), ids=LEVELS)
def capability(request):
    """Each instruction set that this processor has, in force."""
    if ops.set_cpu_capability(request.param) != request.param:
        pytest.skip(f"this processor has no {LEVELS[request.param]}")
    yield request.param
    ops.set_cpu_capability(-1)


def draw(*size, seed, scale=1.0, dtype=torch.float32):
    return (torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def correlation_inputs(B, N, C, H, L, D, dtype=torch.float32, masks=False):
    inputs = [
        draw(B, N, C, seed=1),
        draw(B, H, L, C, seed=2, scale=C**-0.5),
        draw(B, H, L, D, seed=3),
        draw(B, H, L, seed=4),
    ]
    inputs = [x.to(dtype) for x in inputs]
    token_mask = draw(B, L, seed=5) > -0.5 if masks else None
    pixel_mask = draw(B, N, seed=6) > -0.5 if masks else None
    return (*inputs, token_mask, pixel_mask)


def correlation(inputs, cotangents=None, paint=True, pool=True):
    """Outputs and, with cotangents of (painted, pooled, pixel_lse), gradients."""
    painted, pooled, lse, stats = ops.bsc_forward(*inputs, paint, pool)
    if cotangents is None:
        return [painted, pooled, lse]
    return [painted, pooled, lse, *ops.bsc_backward(*cotangents, *inputs, pooled, stats, paint, pool)]


def correlation_reference(inputs, cotangents):
    leaves = [x.double().requires_grad_() for x in inputs[:4]]
    out = reference.bidirectional_spatial_correlation(*leaves, *inputs[4:])
    outputs = [out.painted, out.pooled, out.pixel_lse]
    return [*outputs, *torch.autograd.grad(outputs, leaves, [g.double() for g in cotangents])]


def cotangents_of(outputs):
    return [draw(*x.shape, seed=20 + i).to(x.dtype) for i, x in enumerate(outputs)]


def assert_close(found, due, tolerance):
    for i, (x, y) in enumerate(zip(found, due, strict=True)):
        error = (x.double() - y).abs().max() / y.abs().max()
        assert error < tolerance, f"result {i}: relative error {error:.1e}"


TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1000, 40, 2, 9, 40),  # several chunks of several tiles
        (2, 129, 24, 3, 5, 17),  # two tiles that are not whole vectors; odd widths
        (1, 70, 530, 2, 3, 24),  # channels in three depths
        (1, 40, 24, 3, 200, 24),  # three groups of heads, tokens beyond a group's usual rows
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_correlation_where_work_is_split(capability, shape, dtype):
    inputs = correlation_inputs(*shape, dtype=dtype, masks=True)
    cotangents = cotangents_of(correlation(inputs))
    assert_close(correlation(inputs, cotangents), correlation_reference(inputs, cotangents), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pixels", [1, 7, 8, 9, 16, 127, 128, 129, 192, 193, 255, 900, 905])
def test_pixel_counts_around_the_borders(capability, pixels, dtype):
    inputs = correlation_inputs(1, pixels, 16, 2, 3, 16, dtype=dtype)
    cotangents = cotangents_of(correlation(inputs))
    assert_close(correlation(inputs, cotangents), correlation_reference(inputs, cotangents), TOLERANCE[dtype])


def test_outputs_that_no_cache_holds(capability):
    """From 8 MiB on, painted pixels and the gradient of pixels are written past the caches."""
    inputs = correlation_inputs(1, 8200, 256, 1, 2, 256)
    cotangents = cotangents_of(correlation(inputs))
    assert_close(correlation(inputs, cotangents), correlation_reference(inputs, cotangents), 1e-5)


def twin_inputs(B, N, C, H, K, dtype=torch.float32):
    queries = [draw(B, H, K, C, seed=i, scale=C**-0.5).to(dtype) for i in (2, 3)]
    return (draw(B, N, C, seed=1).to(dtype), *queries, draw(B, N, seed=4, scale=3).to(dtype), draw(B, N, seed=5) > -0.5)


def twin(inputs, cotangents=None):
    out = ops.twin_stream_forward(*inputs)
    if cotangents is None:
        return list(out[:2])
    return [*out[:2], *ops.twin_stream_backward(*cotangents, *inputs, *out)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_twin_stream_where_work_is_split(capability, dtype):
    inputs = twin_inputs(1, 1000, 40, 3, 50, dtype)
    cotangents = cotangents_of(twin(inputs))
    leaves = [x.double().requires_grad_() for x in inputs[:4]]
    due = list(reference.twin_stream_attention(*leaves, inputs[4]))
    due += torch.autograd.grad(due, leaves, [g.double() for g in cotangents])
    assert_close(twin(inputs, cotangents), due, TOLERANCE[dtype])


def test_one_stream_without_a_gradient_equals_a_gradient_of_zeros(capability):
    inputs = twin_inputs(2, 50, 16, 2, 3)
    out = ops.twin_stream_forward(*inputs)
    gradient = draw(*out[0].shape, seed=9)
    alone = ops.twin_stream_backward(gradient, None, *inputs, *out)
    zeros = ops.twin_stream_backward(gradient, torch.zeros_like(gradient), *inputs, *out)
    assert all(torch.equal(x, y) for x, y in zip(alone, zeros, strict=True))


def all_results(samples=1):
    """Forward and backward of the four operators, on problems that several threads share."""
    inputs = correlation_inputs(samples, 1000, 24, 4, 20, 24, masks=True)
    results = correlation(inputs, cotangents_of(correlation(inputs)))
    inputs = twin_inputs(samples, 1000, 24, 4, 4)
    results += twin(inputs, cotangents_of(twin(inputs)))
    maps = (draw(samples, 40, 30, seed=1), draw(samples, 40, 30, seed=2), draw(samples, 160, 120, seed=3) > 0)
    sums = ops.mask_statistics_forward(*maps, None, 0.5)
    results += [sums, *ops.mask_statistics_backward(draw(samples, 9, seed=4), *maps, None, 0.5)]
    rows = (draw(samples, 2000, 48, seed=1), draw(samples, 2000, 48, seed=2), draw(samples, 2000, seed=3) > 0)
    return [*results, ops.masked_cosine_forward(*rows), *ops.masked_cosine_backward(draw(samples, seed=4), *rows)]


@pytest.mark.parametrize("samples", [1, 3])
def test_any_number_of_threads_gives_the_same_bits(capability, samples):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        due = all_results(samples)
        for threads in (2, 5):
            torch.set_num_threads(threads)
            for found, expected in zip(all_results(samples), due, strict=True):
                assert torch.equal(found, expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_in_a_pixel_reaches_what_depends_on_it_and_nothing_else(capability, dtype):
    inputs = correlation_inputs(2, 200, 16, 2, 5, 16, dtype=dtype)
    inputs[0][1, 130, 3] = torch.nan
    painted, pooled, lse = correlation(inputs)
    assert painted[1, 130].isnan().all()
    assert lse[1, :, 130].isnan().all()
    assert pooled[1].isnan().all()
    assert pooled[0].isfinite().all()
    others = torch.arange(200) != 130
    assert painted[:, others].isfinite().all()
    assert painted[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["keys", "key_bias"])
def test_nan_in_a_key_reaches_its_head_in_both_directions(capability, name, dtype):
    inputs = correlation_inputs(1, 200, 16, 2, 5, 16, dtype=dtype)
    {"keys": inputs[1], "key_bias": inputs[3][..., None]}[name][0, 1, 2, 0] = torch.nan
    painted, pooled, lse = correlation(inputs)
    assert painted.isnan().all()  # heads are summed
    assert lse[0, 1].isnan().all()
    assert pooled[0, 1, 2].isnan().all()
    assert lse[0, 0].isfinite().all()
    assert pooled[0, 0].isfinite().all()
    assert pooled[0, 1, [0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_in_a_gradient_is_not_hidden(capability, dtype):
    inputs = correlation_inputs(1, 40, 16, 2, 5, 16, dtype=dtype)
    cotangents = cotangents_of(correlation(inputs))
    cotangents[0][0, 7, 1] = torch.nan
    grads = correlation(inputs, cotangents)[3:]
    assert grads[0][0, 7].isnan().all()
    assert grads[0][0, :7].isfinite().all()
    assert all(x.isnan().any() for x in grads[1:])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_statistics_and_cosine_show_nan_and_infinity(capability, value):
    maps = [draw(2, 8, 8, seed=1), draw(2, 8, 8, seed=2), draw(2, 32, 32, seed=3) > 0]
    maps[0][1, 4, 4] = value
    sums = ops.mask_statistics_forward(*maps, None, 1.0)
    assert sums[0].isfinite().all()
    assert not sums[1, :2].isfinite().any()
    rows = [draw(2, 9, 16, seed=1), draw(2, 9, 16, seed=2), torch.ones(2, 9, dtype=torch.bool)]
    rows[0][1, 4, 4] = value
    loss = ops.masked_cosine_forward(*rows)
    assert loss[0].isfinite()
    assert loss[1].isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_softmax_is_exact_over_the_whole_range_of_the_exponential(capability, dtype):
    # Two tokens, one channel: painted is e^s / (1 + e^s) where the first token has score s <= 0 and the second 0.
    lowest = -87.3 if dtype == torch.float32 else -708.0
    pixels = torch.linspace(lowest, 0, 4001, dtype=torch.float64).to(dtype).reshape(1, -1, 1)
    keys = torch.tensor([1.0, 0.0], dtype=dtype).reshape(1, 1, 2, 1)
    painted = ops.bsc_forward(pixels, keys, keys, None, None, None, True, False)[0]
    due = pixels.double().sigmoid()
    assert ((painted - due) / due).abs().max() < 3 * torch.finfo(dtype).eps
    below = ops.bsc_forward(pixels + 2 * lowest, keys, keys, None, None, None, True, False)[0]
    assert torch.equal(below, torch.zeros_like(below))


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_a_large_bias_changes_nothing(capability, shift):
    inputs = list(correlation_inputs(1, 300, 16, 2, 5, 16, dtype=torch.float64))
    cotangents = cotangents_of(correlation(inputs))
    due = correlation(inputs, cotangents)
    inputs[3] = inputs[3] + shift
    found = correlation(inputs, cotangents)
    due[2] = due[2] + shift
    assert_close(found, due, 1e-10)


@pytest.mark.parametrize("growth", [1.0, -1.0])
def test_pool_follows_a_maximum_that_moves_with_every_tile(capability, growth):
    inputs = list(correlation_inputs(1, 1500, 16, 2, 5, 16))
    inputs[0] = inputs[0] + growth * torch.linspace(-40, 40, 1500)[None, :, None] * inputs[1][0, 0, 0]
    cotangents = cotangents_of(correlation(inputs))
    assert_close(correlation(inputs, cotangents), correlation_reference(inputs, cotangents), 2e-5)


@pytest.mark.parametrize("empty", ["B", "N", "L", "H"])
def test_nothing_of_something(capability, empty):
    sizes = {"B": 2, "N": 30, "C": 8, "H": 2, "L": 5, "D": 8, empty: 0}
    inputs = correlation_inputs(**sizes)
    outputs = correlation(inputs)
    assert torch.equal(outputs[0], torch.zeros_like(outputs[0]))
    assert torch.equal(outputs[1], torch.zeros_like(outputs[1]))
    assert torch.equal(outputs[2], torch.full_like(outputs[2], -torch.inf))
    for gradient in correlation(inputs, cotangents_of(outputs))[3:]:
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_rows_without_keys(capability):
    *inputs, token_mask, pixel_mask = correlation_inputs(3, 300, 16, 2, 5, 16, masks=True)
    token_mask[0] = False
    pixel_mask[1] = False
    inputs = (*inputs, token_mask, pixel_mask)
    outputs = correlation(inputs)
    assert torch.equal(outputs[0][0], torch.zeros(300, 16))
    assert torch.equal(outputs[2][0], torch.full((2, 300), -torch.inf))
    assert torch.equal(outputs[1][1], torch.zeros(2, 5, 16))
    results = correlation(inputs, cotangents_of(outputs))
    assert all(x.isfinite().all() for x in results[3:])
    assert torch.equal(results[5][0], torch.zeros(2, 5, 16))  # values of a sample that paints nothing
    assert torch.equal(results[6][:, :, ~token_mask[0]][0], torch.zeros(2, 5))


def views(inputs):
    """The same numbers in layouts that only share a contiguous last dimension."""

    def wide(x):
        return torch.stack([x, torch.full_like(x, torch.nan)], -2).flatten(-3, -2)[..., ::2, :] if x.dim() > 2 else x

    pixels, keys, values, bias = inputs[:4]
    heads_inside = keys.transpose(1, 2).contiguous().transpose(1, 2)
    return (wide(pixels), heads_inside, wide(values), bias.transpose(1, 2).contiguous().transpose(1, 2), *inputs[4:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strides(capability, dtype):
    inputs = correlation_inputs(2, 150, 16, 3, 5, 16, dtype=dtype, masks=True)
    cotangents = cotangents_of(correlation(inputs))
    spread = [g.transpose(0, 1).contiguous().transpose(0, 1) for g in cotangents]
    due = correlation(inputs, cotangents)
    for found, expected in zip(correlation(views(inputs), spread), due, strict=True):
        assert torch.equal(found, expected)
    expanded = [torch.ones(()).to(g.dtype).expand(g.shape) for g in cotangents]
    ones = [torch.ones_like(g) for g in cotangents]
    for found, expected in zip(correlation(inputs, expanded), correlation(inputs, ones), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("place", ["at an odd address", "an odd number apart"])
def test_rows_of_bfloat16_that_do_not_begin_with_a_pair(capability, place):
    """Where bf16 is multiplied in pairs, rows are read in place only if no pair lies across an even address."""

    def moved(x):
        if place == "at an odd address":
            return torch.cat([x.new_full((1,), torch.nan), x.flatten()])[1:].view(x.shape)
        return torch.cat([x, torch.full_like(x[..., :1], torch.nan)], -1)[..., : x.shape[-1]]

    *inputs, token_mask, pixel_mask = correlation_inputs(2, 150, 64, 3, 5, 32, dtype=torch.bfloat16, masks=True)
    cotangents = cotangents_of(correlation((*inputs, token_mask, pixel_mask)))
    due = correlation((*inputs, token_mask, pixel_mask), cotangents)
    others = (*map(moved, inputs[:3]), inputs[3], token_mask, pixel_mask)
    for found, expected in zip(correlation(others, [*map(moved, cotangents[:2]), cotangents[2]]), due, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("size", "full"), [((30, 30), (120, 120)), ((13, 17), (52, 70)), ((30, 30), (16, 15)), ((1, 1), (5, 9))]
)
def test_statistics_interpolate_as_pytorch_does(capability, size, full):
    maps = [draw(2, *size, seed=1, scale=3), draw(2, *size, seed=2, scale=3), draw(2, *full, seed=3) > 0]
    valid = draw(2, *full, seed=4) > -1
    gradient = draw(2, 9, seed=5)
    leaves = [x.double().requires_grad_() for x in maps[:2]]
    sums = torch.stack(list(reference.twin_mask_statistics(*leaves, maps[2], valid, joint_scale=0.5)), -1)
    due = [sums, *torch.autograd.grad(sums, leaves, gradient.double())]
    found = [ops.mask_statistics_forward(*maps, valid, 0.5), *ops.mask_statistics_backward(gradient, *maps, valid, 0.5)]
    assert_close(found, due, 3e-6)
    assert torch.equal(found[0][:, 5:].double(), sums[:, 5:])  # counts are exact


def test_wrong_shapes_are_named():
    pixels, keys, values, *rest = correlation_inputs(2, 30, 8, 2, 5, 8)
    with pytest.raises(RuntimeError, match=r"keys has shape \(2, 2, 5, 4\)"):
        ops.bsc_forward(pixels, keys[..., :4], values, *rest, True, True)
    with pytest.raises(RuntimeError, match="values has dtype Double"):
        ops.bsc_forward(pixels, keys, values.double(), *rest, True, True)
    with pytest.raises(RuntimeError, match="values are due when painting"):
        ops.bsc_forward(pixels, keys, None, *rest, True, True)


def test_capability_is_set_reported_and_refused():
    automatic = ops.cpu_capability()
    try:
        assert ops.set_cpu_capability(0) == 0
        assert ops.cpu_capability() == 0
        assert ops.set_cpu_capability(len(LEVELS)) == -1
        assert ops.cpu_capability() == 0
    finally:
        assert ops.set_cpu_capability(-1) == automatic
    if "RRSIS_KERNELS_CPU_CAPABILITY" not in os.environ:  # the best of those that this processor has
        assert all(ops.set_cpu_capability(level) == -1 for level in range(automatic + 1, len(LEVELS)))


def test_the_environment_forces_the_capability():
    program = (
        "import os, torch, rrsis_kernels.library\n"
        "ops = torch.ops.rrsis_kernels\n"
        "print(ops.cpu_capability())\n"
        "os.environ['RRSIS_KERNELS_CPU_CAPABILITY'] = 'sse9'\n"
        "try:\n    ops.set_cpu_capability(-1)\n"
        "except RuntimeError as error:\n    print('baseline, avx2, avx512 or avx512bf16 was due' in str(error))\n"
    )
    environment = {**os.environ, "RRSIS_KERNELS_CPU_CAPABILITY": "baseline"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "True"]
