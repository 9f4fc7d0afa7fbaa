"""Starting from weights at hand: a BERT in a folder, a timm backbone in a file."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from rrsis.config import make_config
from rrsis.encoders import StagedBackbone
from rrsis.pretrained import find_backbone_weights, find_weights, load_backbone_weights
from rrsis.processing import build_tokenizer
from rrsis.train import ModelArguments, build_model, main

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
    with pytest.raises(ValueError, match="(?i)cannot be read as weights.*weights.only"):
        load_backbone_weights(StagedBackbone(name, **SMALL_SWIN), config, str(tmp_path / "trap.pth"))


SWIN = "swin_tiny_patch4_window7_224"


def original_layout(model, table_side=None):
    """A Swin's weights as Microsoft names them: stages end with downsampling, buffers are saved, there is a head."""
    weights = {}
    for name, value in model.state_dict().items():
        name = re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)
        if table_side and name.endswith("relative_position_bias_table"):
            value = torch.arange(float(table_side**2))[:, None].expand(-1, value.shape[1]).clone()
        weights[name] = value
    weights["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4, dtype=torch.long)
    weights["head.weight"], weights["head.bias"] = torch.zeros(7, 64), torch.zeros(7)
    return {"model": weights}


@pytest.fixture
def small_swin():
    """A donor, a backbone with other weights, and their configuration."""
    torch.manual_seed(5)
    donor = timm.create_model(SWIN, num_classes=0, **SMALL_SWIN)
    return donor, StagedBackbone(SWIN, **SMALL_SWIN), make_config("tiny", backbone=SWIN, backbone_kwargs=SMALL_SWIN)


def test_the_backbone_starts_from_the_original_layout(tmp_path, small_swin):
    donor, backbone, config = small_swin
    torch.save(original_layout(donor), tmp_path / "swin_22k.pth")
    load_backbone_weights(backbone, config, str(tmp_path / "swin_22k.pth"))
    assert torch.equal(backbone.stem.proj.weight, donor.patch_embed.proj.weight)
    for index in range(4):
        expected, got = donor.layers[index].state_dict(), backbone.stages[index].state_dict()
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_tables_of_relative_positions_are_resized(tmp_path, small_swin):
    donor, backbone, config = small_swin
    torch.save(original_layout(donor, table_side=5), tmp_path / "window3.pth")
    load_backbone_weights(backbone, config, str(tmp_path / "window3.pth"))
    table = backbone.stages[0].blocks[0].attn.relative_position_bias_table[:, 0]
    # A ramp stays a ramp around the same middle, now over 3 × 3 places.
    assert table.shape == (9,)
    assert table.diff().min() > 0
    torch.testing.assert_close(table[4], torch.tensor(12.0))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop("layers.1.blocks.0.norm1.weight"), "it lacks layers.1.blocks.0.norm1.weight$"),
        (lambda weights: weights.update({"extra": torch.zeros(1)}), "it holds extra, which is not there"),
        (lambda weights: weights.update({"layers.0.blocks.0.norm1.bias": torch.zeros(3)}), r"is \(3,\), due is \(8,\)"),
        (
            lambda weights: weights.update({"layers.9.blocks.0.attn.relative_position_bias_table": torch.zeros(9, 1)}),
            "does not fit SwinTransformer",
        ),
    ],
)
def test_another_models_weights_are_refused(tmp_path, small_swin, spoil, message):
    donor, backbone, config = small_swin
    weights = donor.state_dict()
    spoil(weights)
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        load_backbone_weights(backbone, config, str(tmp_path / "other.pth"))


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_file_that_was_cut_off_is_named(tmp_path, small_swin, name):
    _, backbone, config = small_swin
    (tmp_path / name).write_bytes(b"PK\x03\x04 not much more")
    with pytest.raises(ValueError, match=f"backbone_weights .*{name} cannot be read as weights"):
        load_backbone_weights(backbone, config, str(tmp_path / name))


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty working folder and empty caches; gives the working folder and the Hugging Face cache."""
    work, hub = tmp_path / "work", tmp_path / "hub"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    return work, hub


def test_missing_weights_end_with_one_error_before_anything_is_written(nowhere):
    work, hub = nowhere
    with pytest.raises(SystemExit) as caught:
        main(["--preset", "base", "--train_scenes", "2"])
    message = str(caught.value)
    for part in (
        "swin_base_patch4_window12_384.ms_in22k: not found",
        "pretrained_weights/swin_base_patch4_window12_384_22k.pth",
        f"{hub}/models--timm--swin_base_patch4_window12_384.ms_in22k",
        "https://github.com/SwinTransformer/storage/",
        "--backbone_weights FILE",
        "bert-base-uncased and its tokenizer",
        "hf download google-bert/bert-base-uncased",
        "--text_model FOLDER",
        "--from_scratch",
    ):
        assert part in message
    assert not any(work.iterdir())


def fill_hub(hub, repository, files):
    """A repository in a Hugging Face cache, as a download leaves it."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    for name in files:
        (folder / "snapshots" / ("0" * 40) / name).write_text("x")
    return folder / "snapshots" / ("0" * 40)


def test_weights_are_found_in_the_caches_and_nearer_places_win(nowhere):
    work, hub = nowhere
    config = make_config("base")
    swin = fill_hub(hub, "timm/swin_base_patch4_window12_384.ms_in22k", ["model.safetensors"])
    bert = fill_hub(hub, "google-bert/bert-base-uncased", ["config.json", "model.safetensors", "vocab.txt"])
    assert find_weights(config, None, None) == (str(bert), str(swin / "model.safetensors"))
    original = work / "pretrained_weights" / "swin_base_patch4_window12_384_22k.pth"
    original.parent.mkdir()
    original.write_text("x")
    assert find_backbone_weights(config) == str(original.relative_to(work))
    assert find_weights(config, "given", "given.pth") == ("given", "given.pth")


def test_base_starts_from_weights_at_hand(nowhere, bert_folder, small_swin):
    work, _ = nowhere
    bert_folder.rename(work / "bert-base-uncased")
    torch.save(original_layout(small_swin[0]), work / "swin.pth")
    overrides = {"backbone": SWIN, "backbone_kwargs": SMALL_SWIN, "image_size": 64}
    arguments = ModelArguments(preset="base", config_overrides=json.dumps(overrides), backbone_weights="swin.pth")
    model, processor = build_model(arguments, ["unused"])
    assert torch.equal(model.encoder.image.stem.proj.weight, small_swin[0].patch_embed.proj.weight)
    assert processor.tokenizer.tokenize("old bridge") == ["old", "bridge"]


def test_a_text_folder_that_is_not_whole_says_what_it_lacks(bert_folder):
    (bert_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"bert lacks model.safetensors or pytorch_model.bin"):
        build_model(ModelArguments(text_model=str(bert_folder)), ["unused"])
