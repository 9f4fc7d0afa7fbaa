"""The whole fusion layer of Grounding DINO: ours in its place, against what transformers ships and against peers."""

import copy

import pytest
import torch

from benchmarks import layer_peers, measure
from benchmarks.operators import BOTH, FORWARD, as_pass

dino = pytest.importorskip(
    "transformers.models.grounding_dino.modeling_grounding_dino",
    reason="this transformers has no Grounding DINO",
    exc_type=ImportError,
)

# N, L, C, E, H: the published layer on an 800 x 1066 image with a short and a long text; then a quarter of its width.
FULL = [(17821, 20, 256, 1024, 4), (17821, 256, 256, 1024, 4)]
QUICK = [(1024, 20, 64, 256, 4)]
IMPLEMENTATIONS = layer_peers.PEERS


def expected_of(layer, pixels, words, masks, cotangents, pass_name):
    """Both outputs, or the gradients of inputs and parameters, from transformers' layer in fp64."""
    double, leaves = copy.deepcopy(layer).double(), measure.to_double([pixels, words])
    call = layer_peers.shipped(double, *leaves, masks).call
    return as_pass(pass_name, call, [*leaves, *double.parameters()], measure.to_double(cotangents))()


def run(benchmark, shape, pass_name, implementation):
    count, tokens, *widths = shape
    layer = layer_peers.make_layer(dino, *widths)
    pixels, words, masks = layer_peers.make_inputs(layer, count, tokens)
    cotangents = [torch.randn_like(pixels), torch.randn_like(words)]
    group = "Grounding DINO layer {} N={} L={} C={} E={} H={}".format(pass_name, *shape)
    expected = measure.remember(group, lambda: expected_of(layer, pixels, words, masks, cotangents, pass_name))

    parameters = dict(layer.named_parameters())  # our layer and the peers use these very parameters
    inputs = [tensor.requires_grad_(pass_name != FORWARD) for tensor in (pixels, words)]
    peer = IMPLEMENTATIONS[implementation](layer, *inputs, masks)
    if pass_name != FORWARD:
        used = [True, True, *(name in peer.parameters for name in parameters)]
        expected = [gradient for gradient, is_used in zip(expected, used, strict=True) if is_used]
    call = as_pass(pass_name, peer.call, [*inputs, *(parameters[name] for name in peer.parameters)], cotangents)
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)


def test_forward(benchmark, shape, implementation):
    run(benchmark, shape, FORWARD, implementation)


def test_forward_backward(benchmark, shape, implementation):
    run(benchmark, shape, BOTH, implementation)
