"""The LAVT-style baseline: it learns from the words, saves and loads, and has BTDNet's interface."""

import pytest
import torch

from rrsis.architectures import load_model, make_model
from rrsis.config import make_config
from rrsis.lavt import LAVTForReferringSegmentation
from rrsis.model import BTDNetForReferringSegmentation


@pytest.fixture
def baseline(micro_config):
    torch.manual_seed(0)
    micro_config.architecture = "lavt"
    micro_config._check()
    return make_model(type(micro_config).from_dict(micro_config.to_dict()))


def test_the_configuration_chooses_the_model(baseline, micro_config):
    assert isinstance(baseline, LAVTForReferringSegmentation)
    assert not baseline.config.use_twin_stream
    micro_config.architecture = "btdnet"
    assert isinstance(make_model(micro_config), BTDNetForReferringSegmentation)
    with pytest.raises(ValueError, match="architecture must be one of .*'vgg'"):
        make_config("tiny", architecture="vgg")


def test_every_parameter_learns(baseline, micro_batch):
    output = baseline.double().train()(
        **{name: value.double() if value.is_floating_point() else value for name, value in micro_batch.items()}
    )
    output.loss.backward()
    assert output.loss == output.segmentation_loss
    assert output.correlation_loss is None
    silent = [
        name for name, parameter in baseline.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    unused = [name for name in silent if not name.endswith("bias")]
    assert unused in ([], ["encoder.text.embeddings.token_type_embeddings.weight"])


def test_logits_depend_on_the_words_and_not_on_padding(baseline, micro_batch):
    inputs = {name: micro_batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    with torch.no_grad():
        baseline.eval()
        logits = baseline(**inputs).logits
        other = baseline(**{**inputs, "input_ids": inputs["input_ids"].roll(1, 0)}).logits
        padding = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 3)
        padded = baseline(**{**inputs, "input_ids": padding}).logits
    assert logits.shape == (2, 32, 32), "detail_dim takes masks to 1/2"
    assert not torch.allclose(logits, other)
    torch.testing.assert_close(padded, logits)


def test_positions_reach_the_words(baseline, micro_batch):
    inputs = {name: micro_batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    with torch.no_grad():
        plain = baseline.eval()(**inputs).logits
        for fusion in baseline.encoder.fusions:
            fusion.positions = True
        assert not torch.allclose(baseline(**inputs).logits, plain)


def test_saving_and_loading(baseline, micro_batch, tmp_path):
    baseline.eval().save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, LAVTForReferringSegmentation)
    inputs = {name: micro_batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**inputs).logits, baseline(**inputs).logits)
