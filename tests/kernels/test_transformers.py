"""The layer swap in Grounding DINO and MM-Grounding-DINO: same numbers, same weights, and back again."""

import copy
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

from rrsis_kernels.integrations import transformers as integration
from rrsis_kernels.integrations.transformers import accelerate, restore

VARIANTS = {
    "grounding_dino": (GroundingDinoConfig, GroundingDinoForObjectDetection),
    "mm_grounding_dino": (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
}
LAYERS = 2


def make_model(variant: str, **overrides) -> torch.nn.Module:
    """A whole detector with random weights, small enough to run in a moment."""
    config_class, model_class = VARIANTS[variant]
    swin = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    bert = BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    options = {
        "d_model": 32,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 12,
        "max_text_len": 16,
        "fusion_dropout": 0.0,
        "fusion_droppath": 0.0,
    }
    torch.manual_seed(0)
    model = model_class(config_class(backbone_config=swin, text_config=bert, **(options | overrides))).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        # As initialised, the layer's gain of 1e-4 and zero biases would hide any difference.
        if "fusion_layer" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def make_batch() -> dict[str, torch.Tensor]:
    """Two images of different size and two texts of different length, so that both masks matter."""
    generator = torch.Generator().manual_seed(2)
    input_ids = torch.tensor([[101, 7, 8, 1012, 9, 1012, 102, 0], [101, 5, 1012, 102, 0, 0, 0, 0]]) % 99
    pixel_mask = torch.ones(2, 64, 96, dtype=torch.long)
    pixel_mask[1, 48:] = 0
    pixel_mask[1, :, 64:] = 0
    return {
        "pixel_values": torch.randn(2, 3, 64, 96, generator=generator),
        "pixel_mask": pixel_mask,
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).long(),
        "token_type_ids": torch.zeros_like(input_ids),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_detections_agree_and_restore_undoes(variant):
    model, batch = make_model(variant), make_batch()
    classes = [type(module) for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        due = model(**batch)
        assert accelerate(model) == LAYERS
        assert accelerate(model) == 0
        got = model(**batch)
    torch.testing.assert_close(got.logits, due.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.pred_boxes, due.pred_boxes, atol=1e-4, rtol=1e-4)
    assert not torch.equal(got.encoder_last_hidden_state_vision, due.encoder_last_hidden_state_vision), "nothing ran"
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert restore(model) == LAYERS
    assert [type(module) for module in model.modules()] == classes
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, due.logits)


def make_layer(variant: str = "grounding_dino", **overrides) -> torch.nn.Module:
    """One fusion attention, out of a whole model, in fp64."""
    return make_model(variant, **overrides).model.encoder.layers[0].fusion_layer.attn.double()


def make_features(masks: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    vision = torch.randn(2, 50, 32, generator=generator, dtype=torch.float64)
    text = torch.randn(2, 6, 32, generator=generator, dtype=torch.float64)
    if not masks:
        return vision, text, None, None
    return vision, text, torch.rand(2, 50, generator=generator) < 0.3, torch.arange(6)[None] >= torch.tensor([[6], [3]])


@pytest.mark.parametrize("masks", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_layer_outputs_and_gradients_equal_the_original(variant, masks):
    layer = make_layer(variant)
    results = {}
    for swapped in (False, True):
        if swapped:
            assert accelerate(layer) == 1
        vision, text, *padding = (
            tensor if tensor is None or tensor.dtype == torch.bool else tensor.requires_grad_()
            for tensor in make_features(masks)
        )
        (painted, _), (pooled, _) = layer(vision, text, *padding)
        loss = (painted.sin()).sum() + (pooled * pooled.detach().cos()).sum()
        named = dict(layer.named_parameters())
        grads = torch.autograd.grad(loss, [vision, text, *named.values()])
        results[swapped] = {"painted": painted, "pooled": pooled}
        results[swapped] |= dict(zip(["vision", "text", *named], grads, strict=True))
    for name, due in results[False].items():
        torch.testing.assert_close(
            results[True][name], due, atol=1e-9, rtol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_attention_weights_come_from_the_original():
    model, batch = make_model("grounding_dino"), make_batch()
    with torch.no_grad():
        due = model(**batch, output_attentions=True)
        accelerate(model)
        integration._said.clear()
        with pytest.warns(UserWarning, match="output_attentions=True"):
            got = model(**batch, output_attentions=True)
        for ours, theirs in zip(got.encoder_attentions[0], due.encoder_attentions[0], strict=True):
            torch.testing.assert_close(ours, theirs)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model(**batch, output_attentions=True)  # said once is enough
            after = model(**batch)  # and the next call is ours again
    assert after.encoder_attentions is None
    assert not torch.equal(after.logits, got.logits)


def test_active_dropout_runs_the_original():
    layer = make_layer(fusion_dropout=0.5).train()
    features = make_features(masks=True)
    torch.manual_seed(0)
    due = layer(*features)
    accelerate(layer)
    integration._said.clear()
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="dropout of 0.5"):
        got = layer(*features)
    assert torch.equal(got[0][0], due[0][0])
    assert torch.equal(got[1][0], due[1][0])
    assert layer.eval()(*features)[0][1] is None, "without dropout it is ours"


def test_wrapped_projection_runs_the_original():
    layer = make_layer()
    accelerate(layer)
    features = make_features(masks=False)
    due = layer(*features)[0][0]
    layer.vision_proj = torch.nn.Sequential(layer.vision_proj)
    integration._said.clear()
    with pytest.warns(UserWarning, match="plain torch.nn.Linear"):
        (got, weights), _ = layer(*features)
    assert weights is not None
    torch.testing.assert_close(got, due)


def test_all_padding_gives_the_bias_where_the_original_gives_nan():
    layer = make_layer()
    vision, text, _, _ = make_features(masks=False)
    padding = torch.ones(2, 6, dtype=torch.bool)
    assert layer(vision, text, None, padding)[0][0].isnan().any()
    accelerate(layer)
    (painted, _), (pooled, _) = layer(vision, text, None, padding)
    torch.testing.assert_close(painted, layer.out_vision_proj.bias.expand_as(painted))
    assert pooled.isfinite().all()


def test_copies_and_pickles():
    layer = make_layer()
    accelerate(layer)
    features = make_features(masks=True)
    due = layer(*features)[0][0]
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(clone(*features)[0][0], due)
        assert restore(clone) == 1


def test_nothing_of_transformers_is_imported_by_the_package():
    code = "import sys, rrsis_kernels; sys.exit(bool({'transformers', 'timm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
