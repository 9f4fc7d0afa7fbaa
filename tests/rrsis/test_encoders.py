"""Backbones stage by stage, positions, and the fusion after a stage."""

import pytest
import timm
import torch
from torch.testing import assert_close

from rrsis.architectures import make_model
from rrsis.config import BTDNetConfig, make_config
from rrsis.encoders import CorrelationStage, StagedBackbone
from rrsis.model import BTDNetForReferringSegmentation
from rrsis.positions import sine_positions
from rrsis.staging import find_stages

SMALL_SWIN = {"img_size": 64, "embed_dim": 8, "depths": (2, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4}
SMALL = {
    "swin_tiny_patch4_window7_224": SMALL_SWIN,
    "swinv2_tiny_window8_256": SMALL_SWIN,
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)},
}


@pytest.mark.parametrize("name", SMALL)
def test_stages_together_are_the_backbone(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **SMALL[name]).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = model.forward_intermediates(images, indices=4, intermediates_only=True, output_fmt="NCHW")
    staged = StagedBackbone(model)
    state = staged.embed(images)
    for index, due in enumerate(expected):
        state = staged.run_stage(index, state)
        assert state.shape == (2, due.shape[2], due.shape[3], staged.channels[index])
        assert_close(state.permute(0, 3, 1, 2), due, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_a_model_with_any_backbone_learns_and_comes_back(micro_config, micro_batch, tmp_path, name):
    micro_config.backbone, micro_config.backbone_kwargs = name, SMALL[name]
    torch.manual_seed(0)
    model = BTDNetForReferringSegmentation(micro_config).train()
    stem = [parameter for parameter in model.encoder.image.stem.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in stem]
    loss = model(**micro_batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad.abs().max() > 0 for parameter in stem if parameter.ndim > 1)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not all(map(torch.equal, stem, before))
    model.eval().save_pretrained(tmp_path)
    again = BTDNetForReferringSegmentation.from_pretrained(tmp_path).eval()
    inputs = [micro_batch[key] for key in ("pixel_values", "input_ids", "attention_mask")]
    with torch.no_grad():
        assert torch.equal(again(*inputs).logits, model(*inputs).logits)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vit_tiny_patch16_224", {"depth": 1}, "got 'vit_tiny_patch16_224': its features are at strides \\[16\\]"),
        ("nest_tiny_jx", {}, "got 'nest_tiny_jx': its features are at strides \\[4, 8, 16\\]"),
        ("coat_lite_tiny", {}, "no module takes what patch_embed1 returns as it is, on the way to serial_blocks1"),
        ("rexnet_100", {}, r"stages have \[38, 61, 128, 185\] channels, due are multiples of 4"),
        ("efficientformer_l1", {}, r"stages.3 returns \[1, 49, 448\], due is \[1, 448, 7, 7\]"),
        ("no_such_model", {}, "backbone must be the name of a timm model .*; got 'no_such_model'"),
        ("resnet18", {"window_size": 4}, "backbone resnet18 cannot be made with backbone_kwargs {'window_size': 4}: "),
    ],
)
def test_a_backbone_that_will_not_do_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        StagedBackbone(name, **arguments)


@pytest.mark.parametrize("name", ["swinv2_tiny_window8_256", "resnet18"])
def test_another_backbone_of_a_preset_needs_nothing_but_its_name(name):
    config = make_config("tiny", backbone=name)
    assert config.backbone_kwargs == {}, "a Swin's depths and windows are not for others"
    model = make_model(BTDNetConfig.from_dict(config.to_dict())).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, dtype=torch.long)).logits
    assert logits.shape == (1, 64, 64)


class Chain(torch.nn.Module):
    """Looks like a timm model; `between` comes after each stage but the last."""

    default_cfg = {"input_size": (3, 64, 64)}
    feature_info = [{"module": f"stages.{i}", "reduction": 4 * 2**i, "num_chs": 4} for i in range(4)]

    def __init__(self, between):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 2, stride=2)
        # What the ReLU returns is the very tensor that it was given.
        self.stages = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Conv2d(4, 4, 2, stride=2), torch.nn.ReLU(inplace=True)) for _ in range(4)
        )
        self.between = between

    def forward_features(self, images):
        state = self.stages[0](self.stem(images))
        for stage in self.stages[1:]:
            state = stage(self.between(state))
        return state


def test_stages_that_follow_each_other_are_found():
    stages = find_stages(Chain(lambda state: state))
    assert stages == (["stem"], [["stages.0"], ["stages.1"], ["stages.2"], ["stages.3"]], [4] * 4)


def test_a_module_between_stages_belongs_to_the_next_one():
    assert find_stages(Chain(torch.nn.Conv2d(4, 4, 1))).stages[1] == ["between", "stages.1"]


@pytest.mark.parametrize("between", [lambda state: state + 1, lambda state: state.add_(1), lambda state: state[:, :]])
def test_a_step_between_stages_that_is_no_module_is_seen(between):
    with pytest.raises(ValueError, match=r"no module takes what stages.0 returns as it is, on the way to stages.1"):
        find_stages(Chain(between))


def test_a_model_that_does_not_run_is_refused_with_its_own_words():
    with pytest.raises(ValueError, match="it does not run on an image of 96 x 96: no such step"):
        find_stages(Chain(_no_step), image_size=96)


def _no_step(state):
    raise RuntimeError("no such step")


def test_a_stage_that_writes_over_the_features_before_it_is_seen():
    chain = Chain(lambda state: state)
    chain.stages[2].insert(0, torch.nn.ReLU(inplace=True))
    with pytest.raises(ValueError, match=r"what stages.1 returns is written over by the stage after it"):
        find_stages(chain)


def test_gradient_checkpointing_of_stages_that_overwrite_inside_changes_nothing():
    torch.manual_seed(0)
    staged = StagedBackbone(Chain(torch.nn.Conv2d(4, 4, 1)))
    found = []
    for enable in (False, True):
        staged.gradient_checkpointing = enable
        state = staged.embed(torch.ones(1, 3, 64, 64))
        for index in range(4):
            state = staged.run_stage(index, state)
        staged.zero_grad()
        state.sum().backward()
        found.append([parameter.grad.clone() for parameter in staged.parameters()])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", SMALL)
def test_stages_are_found_in_inference_mode(name):
    with torch.inference_mode():
        assert len(StagedBackbone(name, 64, **SMALL[name]).stages) == 4


def test_looking_for_stages_leaves_a_model_as_it_was():
    model = timm.create_model("resnet18", num_classes=0, **SMALL["resnet18"]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_stages(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


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
    staged = StagedBackbone("swin_tiny_patch4_window7_224", **SMALL_SWIN).eval()
    images = torch.randn(1, 3, 64, 64)

    def features(images):
        state = staged.embed(images)
        for index in range(4):
            state = staged.run_stage(index, state)
        return state

    due = features(images)
    with pytest.raises(ValueError, match=r"must be \(B, 3, 64, 64\).*got \(1, 3, 64, 32\)"):
        features(images[..., :32])
    staged.accept_any_size()
    assert torch.equal(features(images), due)
    assert features(torch.randn(1, 3, 96, 32)).shape == (1, 3, 1, staged.channels[3])


def test_fusion_without_gain_changes_nothing_but_still_maps(micro_config):
    micro_config.bsc_gain = 0.0
    stage = CorrelationStage(8, 16, micro_config, micro_config.bsc_pool_from)
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
    stage = CorrelationStage(8, 16, micro_config, micro_config.bsc_pool_from)
    features, tokens = torch.randn(2, 4, 4, 8), torch.randn(2, 5, 16)
    mask = torch.ones(2, 5, dtype=torch.bool)
    fused, words, _ = stage(features, tokens, mask)
    other, _, _ = stage(features, tokens.flip(1) * 2, mask)
    _, other_words, _ = stage(features * 2, tokens, mask)
    assert not torch.allclose(fused, other)
    assert not torch.allclose(words, other_words)


@pytest.mark.parametrize("first", [0, 1, 3])
def test_words_pool_from_the_stage_that_is_asked_for(micro_config, first):
    micro_config.bsc_pool_from = first
    features, tokens, mask = torch.randn(2, 4, 4, 8), torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    stages = [CorrelationStage(8, 16, micro_config, index) for index in range(4)]
    moved = [not torch.equal(stage(features, tokens, mask)[1], tokens) for stage in stages]
    assert moved == [index >= first for index in range(4)]


@pytest.mark.parametrize("first", [-1, 4])
def test_words_cannot_pool_from_a_stage_that_is_not_there(first):
    with pytest.raises(ValueError, match=f"bsc_pool_from must be a stage, 0 to 3; got {first}"):
        make_config("tiny", bsc_pool_from=first)


@pytest.mark.parametrize("changes", [{}, {"use_bsc": False, "use_bsc_pool": False}, {"architecture": "lavt"}])
def test_what_expressions_share_is_exactly_shared(micro_config, micro_batch, changes):
    model = make_model(BTDNetConfig(**{**micro_config.to_dict(), **changes})).eval()
    pixels, ids, mask = micro_batch["pixel_values"], micro_batch["input_ids"], micro_batch["attention_mask"].bool()
    with torch.inference_mode():
        shared = model.encoder.before_words(pixels)
        assert len(shared) == (4 if "use_bsc" in changes else 1)
        for words in (ids, ids.flip(0)):  # the second expression must find what the first one found
            tokens = model.encoder.words(words, mask)
            found = model.decode(pixels, model.encoder.join(list(shared), tokens, mask), mask)[0].logits
            assert torch.equal(found, model(pixels, words, mask).logits)
