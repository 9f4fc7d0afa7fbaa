"""The operators as torch ops: schemas, fake kernels, autograd, autocast, second derivatives."""

import pytest
import torch
from kernel_cases import (
    DTYPES,
    GPU_BACKENDS,
    OPS,
    Case,
    Place,
    correlation_case,
    cosine_case,
    finest_dtype,
    mask_statistics_case,
    skip_unless_supported,
    small_case,
    twin_stream_case,
)

from rrsis_kernels import library, use_backend

ops = torch.ops.rrsis_kernels

FORWARDS = {
    "both": (lambda: ops.bsc_forward, lambda: correlation_case((2, 9, 4, 3, 2, 3)), (True, True)),
    "paint, no masks": (
        lambda: ops.bsc_forward,
        lambda: correlation_case((2, 9, 4, 3, 2, 3), bias=False, masks=False),
        (True, False),
    ),
    "pool, no values": (
        lambda: ops.bsc_forward,
        lambda: correlation_case((2, 9, 4, 3, 2, 3), finest_dtype(), direction="pool"),
        (False, True),
    ),
    "twin stream": (lambda: ops.twin_stream_forward, lambda: twin_stream_case((2, 9, 4, 2, 3)), ()),
    "twin stream, no gate": (
        lambda: ops.twin_stream_forward,
        lambda: twin_stream_case((2, 9, 4, 2, 3), gate=None, masks=False),
        (),
    ),
    "mask statistics": (lambda: ops.mask_statistics_forward, lambda: mask_statistics_case((2, 3, 4), (7, 5)), (0.5,)),
    "masked cosine": (lambda: ops.masked_cosine_forward, lambda: cosine_case((2, 7, 4)), ()),
}


def backward_of(op, arguments):
    """The backward op that belongs to a forward op, and what autograd would call it with."""
    outputs = op(*arguments)
    grads = [torch.ones_like(output) for output in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]
    tensors = list(arguments)
    if op is ops.bsc_forward:
        grads = [grad if grad.numel() else None for grad in grads[:3]]
        return ops.bsc_backward, (*grads, *tensors[:6], outputs[1], outputs[3], *tensors[6:])
    if op is ops.twin_stream_forward:
        return ops.twin_stream_backward, (*grads[:2], *tensors, *outputs)
    if op is ops.mask_statistics_forward:
        return ops.mask_statistics_backward, (*grads, *tensors)
    return ops.masked_cosine_backward, (*grads, *tensors)


@pytest.mark.parametrize("name", FORWARDS)
def test_opcheck(backend, name):
    if backend == "reference":
        pytest.skip("the reference is no torch op")
    op, case, rest = FORWARDS[name][0](), FORWARDS[name][1](), FORWARDS[name][2]
    skip_unless_supported(case.op, finest_dtype())
    leaves = {key: case.tensors[key].requires_grad_() for key in case.differentiable if case.tensors[key] is not None}
    arguments = (*(case.tensors | leaves).values(), *rest)
    torch.library.opcheck(op.default, arguments, test_utils=CHECKS)
    backward, arguments = backward_of(op, [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments])
    torch.library.opcheck(backward.default, arguments, test_utils=CHECKS[:3])


CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def permuted(tensor):
    """The same values, dense, in another order of dimensions."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.parametrize("op", OPS)
def test_any_layout_gives_the_same_contiguous_results(implementation, op):
    case = small_case(op)
    due = case.run()
    strange = Case(
        op, {name: permuted(tensor) for name, tensor in case.tensors.items()}, case.differentiable, case.options
    )
    for name, value in strange.run().items():
        torch.testing.assert_close(value, due[name])
    for value in strange().values():
        assert value.is_contiguous() or implementation == "reference" or op == "twin_mask_statistics"


@pytest.mark.parametrize("op", OPS)
def test_broadcast_inputs_and_gradients(implementation, op):
    """Expanded tensors have strides of zero; so has the gradient of a sum."""
    case = small_case(op, finest_dtype())
    once = {name: tensor[:1] for name, tensor in case.tensors.items()}
    for name in once:
        if once[name].dtype == torch.bool:
            once[name] = torch.ones_like(once[name])
    results = []
    for spread in (
        lambda tensor: tensor.expand(3, *tensor.shape[1:]),
        lambda tensor: tensor.repeat(3, *[1] * (tensor.dim() - 1)),
    ):
        tensors = {name: spread(tensor) for name, tensor in once.items()}
        leaves = {name: tensors[name].detach().requires_grad_() for name in case.differentiable}
        outputs = Case(op, tensors | leaves, (), case.options)()
        total = sum(output.sum() for output in outputs.values())
        results.append([*outputs.values(), *torch.autograd.grad(total, list(leaves.values()))])
    for got, due in zip(*results, strict=True):
        torch.testing.assert_close(got, due)


@pytest.mark.parametrize("op", OPS)
def test_second_derivatives_raise_on_kernels_and_work_on_the_reference(backend, op):
    case = small_case(op, finest_dtype())
    name = case.differentiable[0]
    leaf = case.tensors[name].clone()
    leaf[leaf == 0] = 0.5  # the second derivative of a row's length at zero is infinite
    leaf.requires_grad_()
    output = next(iter(Case(op, case.tensors | {name: leaf}, (), case.options)().values()))
    (grad,) = torch.autograd.grad(output.square().sum(), leaf, create_graph=True)
    if backend == "reference":
        assert torch.autograd.grad(grad.square().sum(), leaf)[0].isfinite().all()
        return
    with pytest.raises(RuntimeError, match="no double backward; use the reference backend"):
        torch.autograd.grad(grad.square().sum(), leaf)


@pytest.mark.parametrize("op", OPS)
def test_gradients_of_some_inputs_and_some_outputs(backend, op):
    """Every input alone, and every output alone, gives what it gives among the others."""
    case = small_case(op, finest_dtype())
    outputs = {name for name, output in case.run().items() if not name.startswith("grad_")}
    for kept in outputs - {"count", "mask_sum", "intersection", "union"}:
        every = gradients(case, case.differentiable, kept)
        for name in case.differentiable:
            (alone,) = gradients(case, (name,), kept)
            torch.testing.assert_close(alone, every[case.differentiable.index(name)])


def gradients(case, names, kept):
    leaves = {name: case.tensors[name].detach().clone().requires_grad_() for name in names}
    output = Case(case.op, case.tensors | leaves, (), case.options)()[kept]
    output = output.masked_fill(output == -torch.inf, 0)
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves.values()]
    total = (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum()
    return torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)


def test_statistics_for_the_backward_have_no_gradient():
    if not library.extension_status()["_C"].loaded:
        pytest.skip(library.extension_status()["_C"].reason)
    tensors = list(correlation_case((2, 9, 4, 3, 2, 3)).tensors.values())
    tensors[0].requires_grad_()
    painted, pooled, pixel_lse, statistics = ops.bsc_forward(*tensors, True, True)
    assert all(output.requires_grad for output in (painted, pooled, pixel_lse))
    assert not statistics.requires_grad
    painted, pooled, pixel_lse, statistics = ops.bsc_forward(*tensors, True, False)
    assert [tuple(output.shape) for output in (pooled, statistics)] == [(0,), (0,)]
    assert not pooled.requires_grad


LOW = {
    "bidirectional_spatial_correlation": {"painted": None, "pooled": None, "pixel_lse": torch.float32},
    "twin_stream_attention": {"target": None, "background": None},
}


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("op", LOW)
def test_autocast_runs_the_attention_ops_in_its_dtype(backend, op, low):
    case = small_case(op)
    leaf = case.tensors["pixels"].requires_grad_()
    mixed = case.tensors | {case.differentiable[1]: case.tensors[case.differentiable[1]].to(low)}
    with torch.autocast(Place.device_type, low):
        outputs = Case(op, mixed, (), case.options)()
    cast = {
        name: tensor if tensor.dtype == torch.bool or name == "gate" else tensor.to(low)
        for name, tensor in mixed.items()
    }
    due = Case(op, cast, (), case.options)()
    for name, output in outputs.items():
        assert output.dtype == (LOW[op][name] or low)
        assert torch.equal(output, due[name])
    (grad,) = torch.autograd.grad(outputs[next(iter(outputs))].sum(), leaf)
    assert grad.dtype == torch.float32
    if backend in GPU_BACKENDS:
        return
    double = small_case(op, torch.float64)
    with torch.autocast("cpu", low):
        assert all(output.dtype == torch.float64 for output in double().values()), "autocast leaves fp64 alone"


@pytest.mark.parametrize("op", ["twin_mask_statistics", "masked_cosine_loss"])
def test_autocast_widens_what_the_losses_are_given(backend, op):
    case = small_case(op)
    name = case.differentiable[1]
    mixed = case.tensors | {name: case.tensors[name].bfloat16()}
    with torch.autocast(Place.device_type, torch.bfloat16):
        outputs = Case(op, mixed, (), case.options)()
    due = Case(op, mixed | {name: mixed[name].float()}, (), case.options)()
    for key, output in outputs.items():
        assert output.dtype == torch.float32
        assert torch.equal(output, due[key])


def test_autocast_of_direct_calls():
    if not library.extension_status()["_C"].loaded:
        pytest.skip(library.extension_status()["_C"].reason)
    tensors = list(correlation_case((2, 9, 4, 3, 2, 3)).tensors.values())
    tensors[1] = tensors[1].bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        painted, _, pixel_lse, _ = ops.bsc_forward(*tensors, True, True)
    assert (painted.dtype, pixel_lse.dtype) == (torch.bfloat16, torch.float32)
    assert torch.autograd.grad(painted.sum(), tensors[1])[0].dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_results_agree_with_the_documented_dtypes(backend, op, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name, output in small_case(op, dtype)().items():
        attended = name in ("painted", "pooled", "target", "background")
        assert output.dtype == (dtype if attended else wide), name


def test_every_schema_stands_as_written():
    for schema in library.schemas():
        name = library.op_name(schema)
        registered = getattr(ops, name).default._schema
        assert str(registered) == str(torch._C.parse_schema(f"rrsis_kernels::{schema}"))


def test_meta_tensors_give_shapes():
    with use_backend("reference"):
        case = correlation_case((2, 9, 4, 3, 2, 3))
        tensors = {name: tensor.to("meta") for name, tensor in case.tensors.items()}
        assert {name: tuple(out.shape) for name, out in Case(case.op, tensors, ())().items()} == {
            "painted": (2, 9, 3),
            "pooled": (2, 2, 3, 4),
            "pixel_lse": (2, 2, 9),
        }
