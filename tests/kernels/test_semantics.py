"""What the operators mean: the equations in loops, masks, empty sizes, NaN, and the same bits on any thread count."""

import math

import pytest
import torch
from kernel_cases import (
    ON_THE_HOST,
    OPS,
    correlation_case,
    cosine_case,
    finest_dtype,
    many,
    mask_statistics_case,
    skip_unless_supported,
    small_case,
    twin_stream_case,
)
from torch.nn import functional as F

import rrsis_kernels


def test_correlation_is_its_equations(implementation):
    case = correlation_case((3, 11, 4, 5, 2, 6), finest_dtype())
    pixels, keys, values, bias, token_mask, pixel_mask = case.tensors.values()
    got = case()
    for b in range(1, 3):
        words, places = token_mask[b].nonzero()[:, 0], pixel_mask[b].nonzero()[:, 0]
        painted = torch.zeros(11, 5, dtype=finest_dtype())
        for h in range(2):
            scores = keys[b, h] @ pixels[b].T + bias[b, h][:, None]
            painted += scores[words].softmax(0).T @ values[b, h, words]
            torch.testing.assert_close(got["pixel_lse"][b, h], scores[words].exp().sum(0).log())
            torch.testing.assert_close(got["pooled"][b, h], scores[:, places].softmax(1) @ pixels[b, places])
        torch.testing.assert_close(got["painted"][b], painted)


def test_correlation_without_channels_to_paint_is_logsumexp(implementation):
    skip_unless_supported("bidirectional_spatial_correlation", finest_dtype())
    pixels = torch.randn(2, 11, 3, dtype=finest_dtype(), requires_grad=True)
    keys = torch.randn(2, 2, 4, 3, dtype=finest_dtype(), requires_grad=True)
    out = rrsis_kernels.bidirectional_spatial_correlation(pixels, keys, keys.new_empty(2, 2, 4, 0), direction="paint")
    due = torch.einsum("bhlc,bnc->bhln", keys, pixels).logsumexp(2)
    assert out.painted.shape == (2, 11, 0)
    torch.testing.assert_close(out.pixel_lse, due)
    weight = torch.randn_like(due)
    grads = torch.autograd.grad(out.pixel_lse, (pixels, keys), weight)
    torch.testing.assert_close(grads, torch.autograd.grad(due, (pixels, keys), weight))


def test_twin_stream_is_its_equations(implementation):
    case = twin_stream_case((3, 11, 4, 2, 3), finest_dtype(), gate=finest_dtype())
    pixels, target, background, gate, pixel_mask = case.tensors.values()
    got = case()
    for b in range(1, 3):
        real = pixel_mask[b]
        for queries, name, sign in ((target, "target", 1), (background, "background", -1)):
            share = torch.sigmoid(sign * gate[b, real]) * (queries[b] @ pixels[b, real].T).exp()
            torch.testing.assert_close(got[name][b], (share / share.sum(-1, keepdim=True)) @ pixels[b, real])


def test_mask_statistics_are_their_equations(implementation):
    case = mask_statistics_case((2, 3, 4), (7, 9), finest_dtype(), mask=finest_dtype())
    target, background, mask, valid = case.tensors.values()
    got = case()
    up = [
        F.interpolate(side[:, None], (7, 9), mode="bilinear", align_corners=False)[:, 0]
        for side in (target, background)
    ]
    z_t, z_b, y = up[0][1][valid[1]], up[1][1][valid[1]], mask[1][valid[1]]
    z = 0.5 * (z_t - z_b)
    due = {
        "bce_joint": -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).sum(),
        "bce_target": -(y * F.logsigmoid(z_t) + (1 - y) * F.logsigmoid(-z_t)).sum(),
        "bce_background": -((1 - y) * F.logsigmoid(z_b) + y * F.logsigmoid(-z_b)).sum(),
        "probability_sum": z.sigmoid().sum(),
        "probability_mask_sum": (z.sigmoid() * y).sum(),
        "mask_sum": y.sum(),
        "count": valid[1].sum(),
        "intersection": ((z > 0) & (y > 0.5)).sum(),
        "union": ((z > 0) | (y > 0.5)).sum(),
    }
    assert got.keys() == due.keys()
    for name, value in due.items():
        torch.testing.assert_close(got[name][1], value.to(mask.dtype), msg=lambda text, n=name: f"{n}: {text}")
        assert got[name][0] == 0, f"{name} of a sample without a valid pixel"


def test_cosine_is_its_equation(implementation):
    case = cosine_case((2, 9, 5), finest_dtype())
    prediction, target, mask = case.tensors.values()
    cosine = F.cosine_similarity(prediction[1], target[1], dim=-1, eps=1e-8)[mask[1]]
    got = case()["loss"]
    torch.testing.assert_close(got[1], (1 - cosine).mean())
    assert got[0] == 0


def test_masks_of_255_count_as_one(implementation):
    case = mask_statistics_case((2, 3, 4), (7, 9), mask=torch.uint8)
    of_one = case()
    bright = rrsis_kernels.twin_mask_statistics(**case.tensors | {"mask": case.tensors["mask"] * 255}, joint_scale=0.5)
    for name, due in of_one.items():
        assert torch.equal(getattr(bright, name), due), name


def test_a_query_without_a_real_key_gives_zeros(implementation):
    results = correlation_case((2, 33, 8, 7, 2, 5)).run()
    assert (results["pixel_lse"][0] == -math.inf).all()
    for name in ("painted", "pooled", "grad_pixels", "grad_keys", "grad_values", "grad_key_bias"):
        assert (results[name][0] == 0).all(), name
        assert (results[name][1] != 0).any(), name
    results = twin_stream_case((2, 33, 8, 2, 5)).run()
    for name, value in results.items():
        assert (value[0] == 0).all(), name
        assert (value[1] != 0).any(), name
    results = mask_statistics_case((2, 5, 5), (9, 9)).run()
    assert all((value[0] == 0).all() for value in results.values())
    results = cosine_case((2, 9, 5)).run()
    assert all((value[0] == 0).all() for value in results.values())


def test_masks_remove_keys_and_not_queries(implementation):
    paint = correlation_case((2, 33, 8, 7, 2, 5), direction="paint")
    pool = correlation_case((2, 33, 8, 7, 2, 5), direction="pool")
    painted, pooled = paint.run(), pool.run()
    for name in ("grad_keys", "grad_values", "grad_key_bias"):
        masked = painted[name].transpose(1, 2)[~paint.tensors["token_mask"]]
        assert (masked == 0).all(), f"masked tokens get a {name} from painting"
    assert (pooled["grad_pixels"][~pool.tensors["pixel_mask"]] == 0).all(), "masked pixels get a gradient from pooling"
    assert (painted["painted"][1, ~paint.tensors["pixel_mask"][1]] != 0).all(), "masked pixels are not painted"
    assert (pooled["pooled"][1, :, ~pool.tensors["token_mask"][1]] != 0).all(), "masked tokens do not pool"


def test_one_direction_is_that_direction_of_both(implementation):
    both = correlation_case((2, 33, 8, 7, 2, 5))()
    paint = correlation_case((2, 33, 8, 7, 2, 5), direction="paint")()
    assert paint.keys() == {"painted", "pixel_lse"}
    for name, value in paint.items():
        torch.testing.assert_close(value, both[name])
    case = correlation_case((2, 33, 8, 7, 2, 5))
    pool = rrsis_kernels.bidirectional_spatial_correlation(**case.tensors, direction="pool")
    assert (pool.painted, pool.pixel_lse) == (None, None)
    torch.testing.assert_close(pool.pooled, both["pooled"])


EMPTY = [
    *(
        correlation_case(shape)
        for shape in [(0, 5, 4, 3, 2, 3), (2, 0, 4, 3, 2, 3), (2, 5, 4, 3, 2, 0), (2, 0, 4, 3, 2, 0)]
    ),
    *(correlation_case((2, 5, 4, 3, 2, 0), masks=False, direction=way) for way in ("both", "paint", "pool")),
    *(correlation_case((2, 0, 4, 3, 2, 3), masks=False, direction=way) for way in ("both", "paint", "pool")),
    *(twin_stream_case(shape) for shape in [(0, 5, 4, 2, 3), (2, 0, 4, 2, 3), (2, 5, 4, 2, 0)]),
    *(mask_statistics_case((b, 3, 4), size) for b, size in [(0, (6, 6)), (2, (0, 6)), (2, (6, 0)), (2, (0, 0))]),
    *(cosine_case(shape) for shape in [(0, 5, 4), (2, 0, 4)]),
]


@pytest.mark.parametrize(
    "case",
    EMPTY,
    ids=lambda case: (
        f"{case.op}-{[*map(tuple, (case.tensors[n].shape for n in case.tensors if case.tensors[n] is not None))]}"
    ),
)
def test_empty_sizes(implementation, case):
    for name, value in case.run().items():
        if name == "pixel_lse" and case.tensors["keys"].shape[2] == 0:
            assert (value == -math.inf).all()
        elif name not in ("pooled", "painted"):  # of the direction that still has keys
            assert (value == 0).all() or "grad" in name
        assert not value.isnan().any(), name


def test_nan_comes_through(implementation):
    case = correlation_case((2, 33, 8, 7, 2, 5), masks=False)
    case.tensors["pixels"][1, 4, 2] = math.nan
    got = case()
    assert got["painted"][1, 4].isnan().all()
    assert got["pixel_lse"][1, :, 4].isnan().all()
    assert got["pooled"][1].isnan().any(-1).all()
    assert not any(value[0].isnan().any() for value in got.values())
    assert not got["painted"][1, 5:].isnan().any()
    case = mask_statistics_case((2, 3, 4), (7, 9), valid=False)
    case.tensors["target_logits"][1, 1, 1] = math.nan
    assert case()["bce_joint"].isnan().tolist() == [False, True]
    case = cosine_case((2, 9, 5))
    case.tensors["mask"][1, 3] = True
    case.tensors["prediction"][1, 3, 0] = math.nan
    assert case()["loss"].isnan().tolist() == [False, True]


LARGE = {
    "bidirectional_spatial_correlation": correlation_case((3, many(1601), 24, 16, 2, 9)),
    "twin_stream_attention": twin_stream_case((3, many(1601), 24, 2, 5)),
    "twin_mask_statistics": mask_statistics_case((3, 20, 30), (150, 170)),
    "masked_cosine_loss": cosine_case((3, many(2500), 24)),
}


@pytest.mark.parametrize("op", OPS)
def test_same_bits_with_any_number_of_threads(kernel, op):
    threads, results = torch.get_num_threads(), []
    counts = (1, 2) if ON_THE_HOST else (1, 2, 3, 5, 1)  # interpreter and emulation have one thread
    try:
        for count in counts:
            torch.set_num_threads(count)
            results.append(LARGE[op].run())
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("op", OPS)
def test_inputs_are_left_alone(kernel, op):
    case = small_case(op)
    before = {name: tensor.clone() for name, tensor in case.tensors.items()}
    case.run()
    for name, tensor in case.tensors.items():
        assert torch.equal(tensor, before[name]), name
