"""Where the places of the fine detail and of the joint head lie in the image."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from rrsis.decoder import DecoderOutput, DecoderState, FineDetail, JointHead, TwinStreamDecoder, _area_resample


@pytest.fixture(params=[4, 8])
def config(micro_config, request):
    micro_config.pixel_map_stride = request.param
    micro_config.detail_dim = 3
    return micro_config


def copy_means(detail):
    """Weights under which each place holds the mean of its own 2 x 2 image pixels, colour by colour."""
    weight = torch.zeros(2, 2, 3, 3, 4, 4)  # place row, column, channel; colour, row, column in the patch
    for row in range(2):
        for column in range(2):
            for colour in range(3):
                weight[row, column, colour, colour, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0.25
    with torch.no_grad():
        detail.patches.weight.copy_(weight.flatten(3).flatten(0, 2))
        detail.patches.bias.zero_()
        if detail.features is not None:
            detail.features[-1].weight.zero_()


def test_a_place_shows_its_own_part_of_the_image(config):
    detail = FineDetail(config, channels=8)
    copy_means(detail)
    image = torch.rand(2, 3, 32, 64)
    places = detail(image, torch.randn(2, 8, 16, 8))
    height, width = 32 // config.pixel_map_stride, 64 // config.pixel_map_stride
    maps = places.view(2, height, width, -1, 3).permute(0, 4, 3, 1, 2).flatten(1, 2)
    assert_close(F.pixel_shuffle(maps, config.pixel_map_stride // 2), F.avg_pool2d(image, 2))


def test_the_head_scores_every_place_by_its_own_features(config):
    detail, head = FineDetail(config, channels=8), JointHead(config)
    copy_means(detail)
    torch.nn.init.zeros_(head.spread.weight)
    image = torch.rand(2, 3, 32, 64)
    side = config.pixel_map_stride
    state = DecoderState.of(
        torch.randn(2, 32 // side, 64 // side, config.decoder_dim), torch.randn(2, 4, config.decoder_dim)
    )
    target, background = head(state, detail(image, torch.randn(2, 8, 16, 8)))

    embedding = head.embedding(head.query_norm(state.queries)) * head.scale
    scores = torch.einsum("bqc,bchw->bqhw", embedding, F.avg_pool2d(image, 2))
    assert_close(target, scores[:, :2].logsumexp(1) + head.target_bias)
    assert_close(background, scores[:, 2:].logsumexp(1) + head.background_bias)


def test_the_pixel_map_moves_only_its_own_places(config):
    head = JointHead(config)
    side = config.pixel_map_stride
    pixels = torch.randn(1, 32 // side, 32 // side, config.decoder_dim)
    queries, detail = torch.randn(1, 4, config.decoder_dim), torch.zeros(1, (32 // side) ** 2, 3 * head.factor**2)
    before, _ = head(DecoderState.of(pixels, queries), detail)
    other = pixels.clone()
    other[0, 1, 2] = torch.randn(config.decoder_dim)
    after, _ = head(DecoderState.of(other, queries), detail)
    changed = (after != before)[0].nonzero()
    assert len(changed) > 0
    assert (changed // head.factor == torch.tensor([1, 2])).all()


@pytest.mark.parametrize("size", [(3, 5), (6, 5), (12, 20), (5, 7)])
def test_area_resampling_means_what_is_covered(size):
    maps = torch.randn(2, 3, 12, 20)
    assert torch.equal(_area_resample(maps, size), F.adaptive_avg_pool2d(maps, size))


def gate_of(config, joint, size):
    decoder = TwinStreamDecoder(config, fine_dim=8, token_dim=8)
    return decoder._gate(DecoderOutput([joint], [-joint]), size)


def test_the_gate_of_a_cell_is_the_logit_of_its_share_of_the_object(micro_config):
    joint = torch.full((1, 16, 16), -12.0)
    joint[0, 4:6, 9:12] = 12.0  # 6 of the 64 pixels of a cell; a mean of logits would be -9.75, shut as everywhere
    gate = gate_of(micro_config, joint, (2, 2))
    shut = -micro_config.gate_clamp
    share = torch.tensor(6 / 64)
    assert_close(gate, torch.tensor([[[shut, torch.logit(share).item()], [shut, shut]]]), rtol=1e-4, atol=1e-4)
    assert_close(gate_of(micro_config, -joint, (2, 2)), -gate, rtol=1e-4, atol=1e-4)


def test_the_gate_is_as_fine_in_half_precision(micro_config):
    assert gate_of(micro_config, torch.zeros(1, 16, 16, dtype=torch.float64), (2, 2)).dtype == torch.float64
    joint = torch.linspace(-8, 8, 256).view(1, 16, 16).bfloat16()
    gate = gate_of(micro_config, joint, (16, 16))
    assert_close(gate, gate_of(micro_config, joint.float(), (16, 16)), rtol=0, atol=0)
    assert gate[0, -1, -1] == pytest.approx(micro_config.gate_clamp, abs=1e-3)


@pytest.mark.parametrize("detach", [True, False])
def test_the_gate_lets_gradients_through_only_where_asked(micro_config, detach):
    micro_config.detach_gate = detach
    joint = torch.randn(2, 8, 8, requires_grad=True)
    gate = gate_of(micro_config, joint, (4, 4))
    assert gate.requires_grad is not detach
    if not detach:
        gate.sum().backward()
        assert torch.isfinite(joint.grad).all()
        assert (joint.grad > 0).all()
