"""Twin mask statistics against interpolate, cross-entropy and Dice at full resolution."""

import torch
from torch.nn import functional as F

from benchmarks import measure
from rrsis_kernels import reference, twin_mask_statistics

# B, h, H: logits at 1/4 and the mask at 480 or 800, and training of the tiny model.
FULL = [(8, 120, 480), (8, 120, 800), (96, 32, 64)]
QUICK = [(8, 32, 128)]


def make_inputs(shape):
    """target_logits, background_logits and mask."""
    batch, side, mask_side = shape
    logits = [torch.randn(batch, side, side) * 3 for _ in range(2)]
    return *logits, torch.rand(batch, mask_side, mask_side) > 0.9


def losses(sums):
    """The three mean cross-entropies and Dice from the sums, (B,) each."""
    dice = 1 - (2 * sums.probability_mask_sum + 1) / (sums.probability_sum + sums.mask_sum + 1)
    return tuple(term / sums.count for term in (sums.bce_joint, sums.bce_target, sums.bce_background)) + (dice,)


def fused(*inputs):
    """The C++ kernels."""
    return measure.on_cpu_kernels(lambda: losses(twin_mask_statistics(*inputs, joint_scale=0.5)))


def full_resolution_losses(target_logits, background_logits, mask):
    """What one writes without the op."""
    size = mask.shape[1:]
    truth = mask.to(target_logits.dtype)
    target = F.interpolate(target_logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    background = F.interpolate(background_logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    joint = (target - background) * 0.5
    entropies = tuple(
        F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean((1, 2))
        for logits, labels in ((joint, truth), (target, truth), (background, 1 - truth))
    )
    probability = joint.sigmoid()
    overlap = (probability * truth).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2)) + truth.sum((1, 2)) + 1)
    return *entropies, dice


def eager(*inputs):
    """`full_resolution_losses` as it stands."""
    return lambda: full_resolution_losses(*inputs)


def compiled(*inputs):
    """`full_resolution_losses` under torch.compile."""
    function = torch.compile(full_resolution_losses, fullgraph=True)
    return lambda: function(*inputs)


def oracle(*inputs):
    """The losses from the reference."""
    return lambda: losses(reference.twin_mask_statistics(*inputs, joint_scale=0.5))


IMPLEMENTATIONS = {measure.OURS: fused, "interpolate + BCE + Dice": eager, "the same, torch.compile": compiled}


def test_forward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    expected = measure.forward_only(oracle(*measure.to_double(inputs)))()
    call = measure.forward_only(IMPLEMENTATIONS[implementation](*inputs))
    group = "mask statistics forward B={} h=w={} H=W={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)


def test_forward_backward(benchmark, shape, implementation):
    inputs = make_inputs(shape)
    cotangents = [torch.rand(shape[0]) for _ in range(4)]
    double = measure.to_double(inputs)
    expected = measure.forward_backward(oracle(*double), double[:2], measure.to_double(cotangents))()
    for tensor in inputs[:2]:
        tensor.requires_grad_()
    call = measure.forward_backward(IMPLEMENTATIONS[implementation](*inputs), inputs[:2], cotangents)
    group = "mask statistics forward+backward B={} h=w={} H=W={}".format(*shape)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)
