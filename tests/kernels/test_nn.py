"""The layers: both orders are one layer, written down independently here; masks, weights, autocast."""

import math

import pytest
import torch
from torch.nn import functional as F

from rrsis_kernels import nn as kernel_nn
from rrsis_kernels.nn import BidirectionalSpatialCorrelation, TwinStreamAttention

PIXELS, TOKENS, EMBED, HEADS = 10, 7, 12, 3


def randomised(layer):
    """Weights and biases that matter; as initialised the biases are zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.5
    return layer


def make_correlation(**options):
    return randomised(BidirectionalSpatialCorrelation(PIXELS, TOKENS, EMBED, HEADS, dtype=torch.float64, **options))


def make_streams(**options):
    return randomised(TwinStreamAttention(EMBED, HEADS, PIXELS, dtype=torch.float64, **options))


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def make_masks(tokens, pixels):
    """Of three samples the first has no real token, the second no real pixel."""
    generator = torch.Generator().manual_seed(5)
    token_mask = torch.rand(3, tokens, generator=generator) < 0.7
    pixel_mask = torch.rand(3, pixels, generator=generator) < 0.7
    token_mask[0], pixel_mask[1] = False, False
    return token_mask, pixel_mask


def heads(features):
    return features.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attention(queries, keys, values, mask, bias=0.0):
    """Softmax attention written with −inf; a row without a real key is zero."""
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(EMBED // HEADS) + bias
    scores = scores.masked_fill(~mask[:, None, None, :], -math.inf)
    return (scores.softmax(-1).nan_to_num(0.0) @ values).transpose(1, 2).flatten(2), scores.logsumexp(-1)


def results_of(layer, inputs, function):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    outputs = function(*leaves)
    total = sum((output.nan_to_num(neginf=0.0) * draw(*output.shape)).sum() for output in outputs)
    return [*outputs, *torch.autograd.grad(total, [*leaves, *layer.parameters()])]


def assert_same(got, due):
    assert len(got) == len(due)
    for one, other in zip(got, due, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("order", ["absorbed", "projected"])
def test_correlation_is_attention_both_ways(implementation, order):
    layer, masks = make_correlation(order=order), make_masks(5, 40)

    def written_down(pixels, tokens):
        queries, keys = heads(layer.pixel_query(pixels)), heads(layer.token_key(tokens))
        painted, lse = attention(queries, keys, heads(layer.token_value(tokens)), masks[0])
        pooled, _ = attention(keys, queries, heads(layer.pixel_value(pixels)), masks[1])
        return layer.painted_out(painted), layer.pooled_out(pooled), lse

    inputs = draw(3, 40, PIXELS), draw(3, 5, TOKENS)
    assert_same(results_of(layer, inputs, lambda *x: layer(*x, *masks)), results_of(layer, inputs, written_down))


@pytest.mark.parametrize("order", ["absorbed", "projected"])
@pytest.mark.parametrize("gated", [True, False])
def test_streams_are_gated_attention(implementation, order, gated):
    layer, (_, pixel_mask) = make_streams(order=order), make_masks(5, 40)

    def written_down(pixels, target, background, gate):
        keys, values = heads(layer.pixel_key(pixels)), heads(layer.pixel_value(pixels))
        pooled = [
            attention(heads(layer.query(queries)), keys, values, pixel_mask, F.logsigmoid(sign * gate)[:, None, None])[
                0
            ]
            for queries, sign in ((target, 1), (background, -1))
        ]
        return tuple(layer.out(stream) for stream in pooled)

    inputs = draw(3, 40, PIXELS), draw(3, 4, EMBED), draw(3, 4, EMBED) + 1, draw(3, 40)
    if gated:
        got = results_of(layer, inputs, lambda *x: layer(*x, pixel_mask))
        assert_same(got, results_of(layer, inputs, written_down))
    else:
        got = layer(*inputs[:3], None, pixel_mask)
        assert_same(got, written_down(*inputs[:3], torch.zeros(3, 40, dtype=torch.float64)))


@pytest.mark.parametrize("direction", ["paint", "pool"])
@pytest.mark.parametrize("order", ["absorbed", "projected"])
def test_one_direction_is_that_direction_of_both(direction, order):
    both, one, masks = (
        make_correlation(order=order),
        make_correlation(order=order, direction=direction),
        make_masks(5, 40),
    )
    one.load_state_dict({name: both.state_dict()[name] for name in one.state_dict()})
    inputs = draw(3, 40, PIXELS), draw(3, 5, TOKENS)
    due, got = both(*inputs, *masks), one(*inputs, *masks)
    named = {"paint": ("painted", "pixel_lse"), "pool": ("pooled",)}[direction]
    for name in due._fields:
        if name in named:
            torch.testing.assert_close(getattr(got, name), getattr(due, name))
        else:
            assert getattr(got, name) is None
    assert all(parameter.grad is None for parameter in one.parameters())
    sum(getattr(got, name).nan_to_num(neginf=0.0).sum() for name in named).backward()
    assert all(parameter.grad is not None for parameter in one.parameters()), "a weight that nothing uses"


@pytest.mark.parametrize("order", ["absorbed", "projected"])
@pytest.mark.parametrize(("pixels", "tokens"), [(0, 5), (6, 0), (0, 0)])
def test_nothing_to_attend_to_gives_the_biases(backend, order, pixels, tokens):
    layer = make_correlation(order=order)
    out = layer(draw(2, pixels, PIXELS), draw(2, tokens, TOKENS))
    if tokens == 0:
        torch.testing.assert_close(out.painted, layer.painted_out.bias.expand(2, pixels, PIXELS))
        assert (out.pixel_lse == -math.inf).all()
    if pixels == 0:
        torch.testing.assert_close(out.pooled, layer.pooled_out.bias.expand(2, tokens, TOKENS))
    streams = make_streams(order=order)
    target, background = streams(draw(2, pixels, PIXELS), draw(2, tokens, EMBED), draw(2, tokens, EMBED))
    if pixels == 0:
        torch.testing.assert_close(target, streams.out.bias.expand(2, tokens, EMBED))
    assert target.shape == background.shape == (2, tokens, EMBED)


def test_auto_takes_the_cheaper_order(monkeypatch):
    assert kernel_nn.cheaper_order(pixel_dim=256, embed_dim=1024, num_heads=4, tokens=20) == "absorbed"
    assert kernel_nn.cheaper_order(pixel_dim=1024, embed_dim=256, num_heads=32, tokens=20) == "projected"
    chosen = []
    for order in ("absorbed", "projected"):
        original = getattr(kernel_nn, f"_correlate_{order}")
        monkeypatch.setattr(
            kernel_nn, f"_correlate_{order}", lambda *args, o=order, f=original: chosen.append(o) or f(*args)
        )
    layer = make_correlation(order="auto")
    layer(draw(2, 9, PIXELS), draw(2, 2, TOKENS))
    layer(draw(2, 9, PIXELS), draw(2, 50, TOKENS))
    assert chosen == ["absorbed", "projected"]


def test_weights_start_as_the_field_has_them():
    for layer in (BidirectionalSpatialCorrelation(64, 48, 96, 4), TwinStreamAttention(96, 4, 64)):
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                assert (parameter == 0).all()
                continue
            bound = math.sqrt(6 / sum(parameter.shape))
            assert parameter.abs().max() <= bound
            assert abs(parameter.std() / (bound / math.sqrt(3)) - 1) < 0.05


@pytest.mark.parametrize("order", ["absorbed", "projected"])
def test_autocast(backend, order):
    torch.manual_seed(0)
    layer = BidirectionalSpatialCorrelation(64, 48, 96, 4, order=order)
    streams = TwinStreamAttention(96, 4, 64, order=order)
    pixels, tokens, queries = torch.randn(2, 100, 64), torch.randn(2, 9, 48), torch.randn(2, 4, 96)
    due = layer(pixels, tokens), streams(pixels, queries, -queries, torch.randn(2, 100))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(pixels, tokens), streams(pixels, queries, -queries, due[0].pixel_lse.mean(1))
    assert got[0].painted.dtype == got[0].pooled.dtype == got[1].target.dtype == torch.bfloat16
    assert got[0].pixel_lse.dtype == torch.float32
    for name in ("painted", "pooled", "pixel_lse"):
        torch.testing.assert_close(getattr(got[0], name).float(), getattr(due[0], name), atol=0.05, rtol=0.05)
    sum(output.float().sum() for output in (*got[0], *got[1])).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in (*layer.parameters(), *streams.parameters()))


def test_bad_input_is_named():
    layer, streams = make_correlation(), make_streams()
    with pytest.raises(ValueError, match=r"pixels must be \(batch, length, 10\), got shape \(2, 9, 7\)"):
        layer(draw(2, 9, TOKENS), draw(2, 5, TOKENS))
    with pytest.raises(ValueError, match=r"tokens must be \(batch, length, 7\), got shape \(5, 7\)"):
        layer(draw(2, 9, PIXELS), draw(5, TOKENS))
    with pytest.raises(ValueError, match="background_queries must have the shape of target_queries"):
        streams(draw(2, 9, PIXELS), draw(2, 5, EMBED), draw(2, 4, EMBED))
    with pytest.raises(ValueError, match="embed_dim must be a multiple of num_heads, got 10 and 3"):
        BidirectionalSpatialCorrelation(8, 8, 10, 3)
    with pytest.raises(ValueError, match="order must be one of 'auto', 'absorbed', 'projected', got 'best'"):
        TwinStreamAttention(8, 2, order="best")
    with pytest.raises(ValueError, match="direction must be one of"):
        BidirectionalSpatialCorrelation(8, 8, 8, 2, direction="back")
