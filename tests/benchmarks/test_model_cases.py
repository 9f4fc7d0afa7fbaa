"""The variants of the model differ in what they say they differ in, and in nothing else."""

import torch

from benchmarks import model_cases
from benchmarks.measure import OURS
from rrsis_kernels import nn as kernel_nn

LAYERS = (kernel_nn.BidirectionalSpatialCorrelation, kernel_nn.TwinStreamAttention)


def test_variants_share_weights_and_differ_in_order():
    projected, ours = (model_cases.make_model("tiny", variant) for variant in ("projected form", OURS))
    assert {module.order for module in projected.modules() if isinstance(module, LAYERS)} == {"projected"}
    assert {module.order for module in ours.modules() if isinstance(module, LAYERS)} == {"auto"}
    for one, other in zip(projected.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_training_step_gives_loss_and_norm_and_changes_the_weights():
    found = []
    step = model_cases.training("tiny", model_cases.REFERENCE, 1, prepare=found.append)
    before = [parameter.clone() for parameter in found[0].parameters()]
    loss, norm = step()
    assert loss > 0
    assert norm > 0
    assert any(not torch.equal(one, other) for one, other in zip(before, found[0].parameters(), strict=True))
