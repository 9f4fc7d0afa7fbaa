"""The model as a whole: shapes, switches, saving, and equality of the fused and the reference ops."""

import pytest
import torch
from torch.testing import assert_close

import rrsis_kernels
from rrsis.config import BTDNetConfig, make_config
from rrsis.model import BTDNetForReferringSegmentation


def build(config, seed=0, **changes):
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    return BTDNetForReferringSegmentation(config)


@pytest.fixture
def fused_backend():
    """The backend whose kernels this machine runs; the model is compared with the reference under it."""
    support = rrsis_kernels.backends.explain("bidirectional_spatial_correlation", "cpu", torch.float32)["cpu"]
    if not support.ok:
        pytest.skip(f"no fused CPU kernels: {support.reason}")
    return "cpu"


def run(model, batch, backend, dtype):
    model = model.to(dtype)
    model.zero_grad()
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    torch.manual_seed(3)  # the places that D-MOLS hides
    with rrsis_kernels.use_backend(backend):
        output = model(**batch)
        output.loss.backward()
    return output, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("dtype", "tolerance", "draws"), [(torch.float64, 1e-9, 1), (torch.float32, 2e-3, 3)])
def test_fused_ops_equal_reference_ops(micro_config, micro_batch, dtype, tolerance, draws, fused_backend):
    far = set()
    for seed in range(draws):
        model = build(micro_config, seed).train()
        expected, expected_grads = run(model, micro_batch, "reference", dtype)
        got, grads = run(model, micro_batch, fused_backend, dtype)
        assert_close(got.loss, expected.loss, rtol=tolerance, atol=0)
        assert_close(got.logits, expected.logits, rtol=tolerance, atol=tolerance)
        assert grads.keys() == expected_grads.keys()
        # A gradient's own rounding follows the largest of its entries, not each entry.
        far = {
            name
            for name, due in expected_grads.items()
            if not (grads[name] - due).abs().max() <= tolerance * due.abs().max() + 1e-6 * tolerance
        }
        if not far:
            break
        # In fp32 a ReLU's input within rounding of zero may fall on either side: bad luck of one draw of the weights
        # (seen: an input of 1.2e-7, 1.3% of a gradient), while a wrong kernel is wrong in all.
    assert not far


def test_every_parameter_learns(micro_config, micro_batch):
    _, grads = run(build(micro_config).train(), micro_batch, "reference", torch.float64)
    assert [name for name, grad in grads.items() if grad is None] == []
    # Every weight must be reached by the loss; a bias before a softmax has a gradient of exactly zero.
    silent = [name for name, grad in grads.items() if not grad.any() and not name.endswith("bias")]
    unused_words = {"encoder.text.embeddings.token_type_embeddings.weight"}
    assert set(silent) <= unused_words


@pytest.mark.parametrize(("stride", "detail_dim", "size"), [(8, 4, 32), (4, 4, 32), (4, 0, 16)])
def test_shapes(micro_config, micro_batch, stride, detail_dim, size):
    output = build(micro_config, pixel_map_stride=stride, detail_dim=detail_dim).eval()(**micro_batch)
    assert output.logits.shape == (2, size, size)
    assert_close(output.logits, (output.target_logits - output.background_logits) / 2)
    assert len(output.layer_logits) == micro_config.decoder_layers
    assert [tuple(map_.shape) for map_ in output.correlation_maps] == [(2, 16, 16), (2, 8, 8), (2, 4, 4), (2, 2, 2)]
    assert output.reconstruction_loss is None, "D-MOLS is for training only"


def test_padding_changes_nothing(micro_config, micro_batch):
    model = build(micro_config).eval()
    inputs = {name: micro_batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    expected = model(**inputs).logits
    longer = {
        "pixel_values": inputs["pixel_values"],
        "input_ids": torch.nn.functional.pad(inputs["input_ids"], (0, 5), value=9),
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, 5)),
    }
    assert_close(model(**longer).logits, expected, rtol=1e-4, atol=1e-5)


def test_words_matter(micro_config, micro_batch):
    model = build(micro_config).eval()
    other = {**micro_batch, "input_ids": micro_batch["input_ids"].flip(1)}
    assert (model(**other).logits - model(**micro_batch).logits).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ("use_bsc", "encoder.fusions"),
        ("use_bsc_pool", "encoder.fusions.2.token_gain"),
        ("use_twin_stream", "decoder.head.background_bias"),
        ("use_gate", None),
        ("use_reconstruction", "reconstruction"),
    ],
)
def test_each_part_can_be_switched_off_alone(micro_config, micro_batch, switch, gone):
    whole = {name for name, _ in build(micro_config).named_parameters()}
    model = build(micro_config, **{switch: False}).train()
    names = {name for name, _ in model.named_parameters()}
    assert names <= whole
    if gone is not None:
        assert any(name.startswith(gone) for name in whole)
        assert not any(name.startswith(gone) for name in names)
    output = model(**micro_batch)
    assert torch.isfinite(output.loss)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_switched_off_gate_changes_later_layers_only(micro_config, micro_batch):
    model = build(micro_config).eval()
    gated = model(**micro_batch).layer_logits
    model.decoder.config.use_gate = False
    plain = model(**micro_batch).layer_logits
    assert_close(plain[0], gated[0], rtol=0, atol=0)
    assert not torch.equal(plain[1], gated[1])


def test_single_stream_predicts_its_complement(micro_config, micro_batch):
    output = build(micro_config, use_twin_stream=False).eval()(**micro_batch)
    assert_close(output.logits, output.target_logits)


def test_save_and_load(micro_config, micro_batch, tmp_path):
    model = build(micro_config).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = BTDNetForReferringSegmentation.from_pretrained(tmp_path).eval()
    ignored = {"_name_or_path", "dtype", "text_config"}
    expected, got = model.config.to_dict(), loaded.config.to_dict()
    assert {k: v for k, v in got.items() if k not in ignored} == {k: v for k, v in expected.items() if k not in ignored}
    assert loaded.config.text_config.hidden_size == model.config.text_config.hidden_size
    assert torch.equal(loaded(**micro_batch).logits, model(**micro_batch).logits)


def test_same_seed_same_weights(micro_config):
    first, second = build(micro_config).state_dict(), build(micro_config).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": torch.zeros(2, 1, 64, 64)}, r"pixel_values must be \(B, 3, H, W\); got \(2, 1, 64, 64\)"),
        (
            {"pixel_values": torch.zeros(2, 3, 64, 66)},
            r"pixel_values must have sides that 8 divides",
        ),
        ({"input_ids": torch.zeros(3, 7, dtype=torch.long)}, r"input_ids must be \(2, L\); got \(3, 7\)"),
        ({"labels": torch.zeros(2, 32, 32)}, r"labels must be \(2, 64, 64\).*got \(2, 32, 32\)"),
    ],
)
def test_bad_input_is_named(micro_config, micro_batch, change, message):
    with pytest.raises(ValueError, match=message):
        build(micro_config)(**{**micro_batch, **change})


def test_config_round_trip(tmp_path):
    config = make_config("tiny", use_gate=False)
    config.save_pretrained(tmp_path)
    loaded = BTDNetConfig.from_pretrained(tmp_path)
    config.name_or_path = loaded.name_or_path
    assert loaded.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bsc_num_heads": [4, 4]}, "bsc_num_heads must have 4 entries"),
        ({"bsc_embed_dims": [64, 64, 64, 63]}, "bsc_embed_dims must be divisible"),
        ({"decoder_dim": 62}, "decoder_dim must be divisible"),
        ({"loss_stride": 4}, "loss_stride must be 1 or 2"),
        ({"image_size": 100}, "image_size must be a multiple of 32"),
    ],
)
def test_config_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_config("tiny", **change)


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset must be one of .*'huge'"):
        make_config("huge")


def test_base_preset_has_the_published_encoders():
    config = make_config("base")
    assert config.backbone == "swin_base_patch4_window12_384"
    assert config.image_size == 480
    text = config.text_config
    assert (text.hidden_size, text.num_hidden_layers, text.vocab_size) == (768, 12, 30522)
