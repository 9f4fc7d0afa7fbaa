"""Bad input: one clear error that names the argument, what came and what was due."""

import pytest
import torch
from kernel_cases import OPS, Case, small_case

FIRST = {op: next(iter(small_case(op).tensors)) for op in OPS}
FEATURES = [(op, name) for op in OPS for name in small_case(op).differentiable if name != "gate"]
MASKS = [
    ("bidirectional_spatial_correlation", "token_mask"),
    ("bidirectional_spatial_correlation", "pixel_mask"),
    ("twin_stream_attention", "pixel_mask"),
    ("twin_mask_statistics", "valid"),
    ("masked_cosine_loss", "mask"),
]
EVERY = [(op, name) for op in OPS for name in small_case(op).tensors]


def call(op, **changed):
    case = small_case(op)
    return Case(op, case.tensors | changed, (), case.options)()


def change(op, name, function):
    return {name: function(small_case(op).tensors[name])}


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_not_a_tensor(backend, op, name):
    with pytest.raises(TypeError, match=rf"^{op}: {name} must be a tensor .*, got list$"):
        call(op, **{name: [1.0]})


@pytest.mark.parametrize(("op", "name"), FEATURES)
def test_required_features_may_not_be_none(op, name):
    if name == "key_bias":
        call(op, key_bias=None)
        return
    with pytest.raises(TypeError, match=rf"{name} must be a tensor .*, got NoneType"):
        call(op, **{name: None})


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_rank(op, name):
    with pytest.raises(ValueError, match=rf"^{op}: {name} must have \d dimensions \(B, .*\), got \d in shape"):
        call(op, **change(op, name, lambda tensor: tensor[0]))


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_size(op, name):
    if name == FIRST[op]:
        return  # fixes the sizes; the next argument is blamed
    with pytest.raises(
        ValueError, match=rf"^{op}: {name} \(B, .*\) must have B = 2 as {FIRST[op]} has, got 1 in shape"
    ):
        call(op, **change(op, name, lambda tensor: tensor[:1]))


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_device(op, name):
    if name == FIRST[op]:
        return
    with pytest.raises(ValueError, match=rf"^{op}: {name} must be on cpu as {FIRST[op]} is, got meta"):
        call(op, **change(op, name, lambda tensor: tensor.to("meta")))


@pytest.mark.parametrize(("op", "name"), FEATURES)
def test_mixed_dtypes(op, name):
    if name == FIRST[op]:
        return
    with pytest.raises(TypeError, match=rf"^{op}: {name} must be float32 as {FIRST[op]} is, got bfloat16"):
        call(op, **change(op, name, lambda tensor: tensor.bfloat16()))


@pytest.mark.parametrize("op", OPS)
def test_integers(op):
    with pytest.raises(TypeError, match=rf"{FIRST[op]} must be float32 or bfloat16 or float16 or float64, got int64"):
        call(op, **change(op, FIRST[op], lambda tensor: tensor.long()))


@pytest.mark.parametrize(("op", "name"), MASKS)
def test_masks_are_boolean(op, name):
    with pytest.raises(TypeError, match=rf"^{op}: {name} must be bool, got int64"):
        call(op, **change(op, name, lambda tensor: tensor.long()))


def test_gate_and_mask_dtypes():
    with pytest.raises(
        TypeError, match="gate must be float32 or float32, got float64|gate must be float32, got float64"
    ):
        call("twin_stream_attention", **change("twin_stream_attention", "gate", lambda tensor: tensor.double()))
    with pytest.raises(TypeError, match="mask must be bool or uint8 or float32 .*, got int64"):
        call("twin_mask_statistics", **change("twin_mask_statistics", "mask", lambda tensor: tensor.long()))


def test_direction():
    case = small_case("bidirectional_spatial_correlation")
    with pytest.raises(ValueError, match="direction must be one of 'both', 'paint', 'pool', got 'down'"):
        Case(case.op, case.tensors, (), {"direction": "down"})()


def test_nothing_to_resize():
    with pytest.raises(ValueError, match=r"target_logits must have pixels to resize from, got shape \(2, 0, 3\)"):
        call("twin_mask_statistics", target_logits=torch.zeros(2, 0, 3), background_logits=torch.zeros(2, 0, 3))
