"""The whole fusion layer of Grounding DINO: as transformers ships it, and with this project's layer swapped in."""

import copy

import pytest
import torch
from torch import nn

from benchmarks import measure

dino = pytest.importorskip(
    "transformers.models.grounding_dino.modeling_grounding_dino",
    reason="this transformers has no Grounding DINO",
    exc_type=ImportError,
)

# N, L: an 800 x 1066 image with a short and a long text.
FULL = [(17821, 20), (17821, 256)]
QUICK = [(1024, 20)]


def make_layer(full):
    """The layer of the published configuration, or one of a quarter of its width."""
    width = 1 if full else 4
    config = dino.GroundingDinoConfig(
        d_model=256 // width,
        encoder_ffn_dim=2048 // width,
        encoder_attention_heads=8,
        fusion_dropout=0.0,
        backbone_config=None,
    )
    return dino.GroundingDinoBiMultiHeadAttention(config).eval()


def outputs_of(layer, pixels, tokens, masks):
    """Vision and text output of one call, without the attention weights."""
    (vision, _), (text, _) = layer(pixels, tokens, **masks)
    return vision, text


def shipped(layer, *inputs):
    """transformers' own layer."""
    return lambda: outputs_of(layer, *inputs)


def compiled(layer, *inputs):
    """transformers' own layer under torch.compile."""
    layer = torch.compile(layer)
    return lambda: outputs_of(layer, *inputs)


def swapped(layer, *inputs):
    """The layer that `accelerate` puts in its place, same weights."""
    from rrsis_kernels.integrations.transformers import accelerate

    holder = nn.ModuleDict({"attn": layer})
    assert accelerate(holder) == 1
    return lambda: outputs_of(holder["attn"], *inputs)


def fused(layer, *inputs):
    """Our layer on the C++ kernels."""
    return measure.on_cpu_kernels(swapped(layer, *inputs))


def eager(layer, *inputs):
    """Our layer on the reference backend: what absorbing alone is worth."""
    return measure.on_reference(swapped(layer, *inputs))


IMPLEMENTATIONS = {
    measure.OURS: fused,
    "absorbed, eager": eager,
    "transformers": shipped,
    "transformers, torch.compile": compiled,
}


@pytest.fixture
def layer(request):
    return make_layer(request.config.getoption("full"))


def make_inputs(shape, layer):
    """pixels, tokens and masks; in transformers' layer True marks padding. The last tokens are padding."""
    count, tokens = shape
    pixels, words = torch.randn(1, count, layer.vision_dim), torch.randn(1, tokens, layer.text_dim)
    masks = {
        "vision_attention_mask": torch.zeros(1, count, dtype=torch.bool),
        "text_attention_mask": torch.arange(tokens)[None] >= tokens - 3,
    }
    return pixels, words, masks


def test_forward(benchmark, shape, implementation, layer):
    pixels, words, masks = make_inputs(shape, layer)
    double = copy.deepcopy(layer).double()
    expected = measure.forward_only(shipped(double, pixels.double(), words.double(), masks))()
    call = measure.forward_only(IMPLEMENTATIONS[implementation](layer, pixels, words, masks))
    group = f"Grounding DINO layer forward N={shape[0]} C={layer.vision_dim} E={layer.embed_dim} L={shape[1]}"
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)


def test_forward_backward(benchmark, shape, implementation, layer):
    pixels, words, masks = make_inputs(shape, layer)
    cotangents = [torch.randn_like(pixels), torch.randn_like(words)]
    double = copy.deepcopy(layer).double()
    leaves = measure.to_double([pixels, words])
    expected = measure.forward_backward(
        shipped(double, *leaves, masks), [*leaves, *double.parameters()], measure.to_double(cotangents)
    )()
    pixels.requires_grad_()
    words.requires_grad_()
    parameters = list(layer.parameters())  # `accelerate` keeps the very parameters
    call = measure.forward_backward(
        IMPLEMENTATIONS[implementation](layer, pixels, words, masks), [pixels, words, *parameters], cotangents
    )
    group = f"Grounding DINO layer forward+backward N={shape[0]} C={layer.vision_dim} E={layer.embed_dim} L={shape[1]}"
    measure.run(benchmark, call, expected, group=group, implementation=implementation, shape=shape)
