"""Backbones stage by stage, positions, and the fusion after a stage."""

import pytest
import timm
import torch
from torch.testing import assert_close

from rrsis.encoders import CorrelationStage, StagedBackbone
from rrsis.positions import sine_positions

SMALL = {
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "embed_dim": 8,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 2, 2),
        "window_size": 2,
    },
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)},
}


@pytest.mark.parametrize("name", SMALL)
def test_stages_together_are_the_backbone(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **SMALL[name]).eval()
    staged = StagedBackbone(name, **SMALL[name]).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = model.forward_intermediates(images, indices=4, intermediates_only=True, output_fmt="NCHW")
    state_dict = staged.state_dict()
    for key, value in zip(state_dict, model.state_dict().values(), strict=False):
        assert state_dict[key].shape == value.shape, "timm's order of modules is the staged one's"
        state_dict[key].copy_(value)
    state = staged.embed(images)
    for index, due in enumerate(expected[-4:]):
        state = staged.run_stage(index, state)
        assert state.shape == (2, due.shape[2], due.shape[3], staged.channels[index])
        assert_close(state.permute(0, 3, 1, 2), due, rtol=1e-4, atol=1e-4)


def test_a_backbone_without_four_stages_is_refused():
    with pytest.raises(ValueError, match="backbone must be a Swin, ConvNeXt or ResNet of timm; got 'vit_tiny"):
        StagedBackbone("vit_tiny_patch16_224")


def test_positions_tell_every_place_apart_at_any_resolution():
    coarse = sine_positions(4, 6, 32, torch.zeros(()))
    assert coarse.shape == (24, 32)
    assert torch.cdist(coarse, coarse)[~torch.eye(24, dtype=torch.bool)].min() > 0.1
    fine = sine_positions(12, 18, 32, torch.zeros(())).view(12, 18, 32)
    assert_close(fine[1::3, 1::3].reshape(24, 32), coarse), "the same place, the same position"


def test_positions_of_an_exported_graph_are_the_same_for_any_size():
    class Positions(torch.nn.Module):
        def forward(self, features):
            return sine_positions(*features.shape[1:3], 32, features)

    example = torch.zeros(1, 6, 7, 1)
    shapes = {"features": {1: torch.export.Dim("height", min=2), 2: torch.export.Dim("width", min=2)}}
    exported = torch.export.export(Positions(), (example,), dynamic_shapes=shapes).module()
    for size in ((2, 3), (120, 15)):
        assert_close(exported(torch.zeros(1, *size, 1)), sine_positions(*size, 32, example), rtol=0, atol=1e-7)


def test_a_swin_that_accepts_any_size_gives_the_same_at_its_own():
    torch.manual_seed(0)
    staged = StagedBackbone("swin_tiny_patch4_window7_224", **SMALL["swin_tiny_patch4_window7_224"]).eval()
    images = torch.randn(1, 3, 64, 64)

    def features(images):
        state = staged.embed(images)
        for index in range(4):
            state = staged.run_stage(index, state)
        return state

    due = features(images)
    with pytest.raises(AssertionError, match="doesn't match model"):
        features(images[..., :32])
    staged.accept_any_size()
    assert torch.equal(features(images), due)
    assert features(torch.randn(1, 3, 96, 32)).shape == (1, 3, 1, staged.channels[3])


def test_fusion_without_gain_changes_nothing_but_still_maps(micro_config):
    micro_config.bsc_gain = micro_config.bsc_token_gain = 0.0
    stage = CorrelationStage(8, 16, micro_config, 0)
    features, tokens = torch.randn(2, 4, 4, 8), torch.randn(2, 5, 16)
    fused, words, correlation = stage(features, tokens, torch.ones(2, 5, dtype=torch.bool))
    assert_close(fused, features)
    assert_close(words, tokens)
    assert correlation.shape == (2, 4, 4)


def test_correlation_map_leaves_all_heads_but_one_free(micro_config):
    micro_config.bsc_num_heads[0] = 2
    stage = CorrelationStage(8, 16, micro_config, 0)
    *_, correlation = stage(torch.randn(2, 4, 4, 8), torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool))
    correlation.sum().backward()
    for projection in (stage.correlation.pixel_query, stage.correlation.token_key):
        of_the_map, free = projection.weight.grad.chunk(2)
        assert of_the_map.abs().max() > 0
        assert not free.any()


def test_fusion_moves_both_modalities(micro_config):
    stage = CorrelationStage(8, 16, micro_config, 0)
    features, tokens = torch.randn(2, 4, 4, 8), torch.randn(2, 5, 16)
    mask = torch.ones(2, 5, dtype=torch.bool)
    fused, words, _ = stage(features, tokens, mask)
    other, _, _ = stage(features, tokens.flip(1) * 2, mask)
    _, other_words, _ = stage(features * 2, tokens, mask)
    assert not torch.allclose(fused, other)
    assert not torch.allclose(words, other_words)


@pytest.mark.parametrize("changes", [{}, {"use_bsc": False, "use_bsc_pool": False}, {"architecture": "lavt"}])
def test_what_expressions_share_is_exactly_shared(micro_config, micro_batch, changes):
    from rrsis.architectures import make_model
    from rrsis.config import BTDNetConfig

    model = make_model(BTDNetConfig(**{**micro_config.to_dict(), **changes})).eval()
    pixels, ids, mask = micro_batch["pixel_values"], micro_batch["input_ids"], micro_batch["attention_mask"].bool()
    with torch.inference_mode():
        shared = model.encoder.before_words(pixels)
        assert len(shared) == (4 if "use_bsc" in changes else 1)
        for words in (ids, ids.flip(0)):  # the second expression must find what the first one found
            tokens = model.encoder.words(words, mask)
            found = model.decode(pixels, model.encoder.join(list(shared), tokens, mask), mask)[0].logits
            assert torch.equal(found, model(pixels, words, mask).logits)
