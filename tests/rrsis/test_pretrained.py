"""Starting from weights at hand: a BERT in a folder, a timm backbone in a file."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from rrsis.config import make_config
from rrsis.encoders import StagedBackbone
from rrsis.pretrained import load_backbone_weights
from rrsis.processing import build_tokenizer
from rrsis.train import ModelArguments, build_model

SMALL_SWIN = {"img_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2}


@pytest.fixture
def bert_folder(tmp_path):
    """A small BERT and its tokenizer, as `save_pretrained` writes them."""
    tokenizer = build_tokenizer(["the old wooden bridge"])
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
    )
    torch.manual_seed(5)
    BertModel(config, add_pooling_layer=True).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_the_text_encoder_starts_from_a_folder(bert_folder):
    model, processor = build_model(ModelArguments(text_model=str(bert_folder)), ["words that BERT never saw"])
    expected = BertModel.from_pretrained(bert_folder, add_pooling_layer=False).state_dict()
    got = model.encoder.text.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert processor.tokenizer.tokenize("the wooden bridge") == ["the", "wooden", "bridge"]
    assert model.config.text_config.hidden_size == 24


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_backbone_starts_from_a_file(tmp_path, suffix):
    torch.manual_seed(5)
    name = "swin_tiny_patch4_window7_224"
    donor = timm.create_model(name, num_classes=0, **SMALL_SWIN)
    path = tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(donor.state_dict(), path)
    torch.manual_seed(6)
    backbone = StagedBackbone(name, **SMALL_SWIN)
    config = make_config("tiny", backbone=name, backbone_kwargs=SMALL_SWIN)
    load_backbone_weights(backbone, config, str(path))
    for index in range(4):
        expected, got = donor.layers[index].state_dict(), backbone.stages[index].state_dict()
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_file_that_would_run_code_is_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the file's code was run",))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    name = "swin_tiny_patch4_window7_224"
    config = make_config("tiny", backbone=name, backbone_kwargs=SMALL_SWIN)
    with pytest.raises(Exception, match="(?i)weights.only"):
        load_backbone_weights(StagedBackbone(name, **SMALL_SWIN), config, str(tmp_path / "trap.pth"))
