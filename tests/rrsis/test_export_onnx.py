"""rrsis.export to ONNX: standard operators, any size, length and batch within its bounds, the model's own logits."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from micro import MICRO
from PIL import Image
from torch.testing import assert_close

from rrsis import export as cli
from rrsis import export_onnx
from rrsis.config import make_config
from rrsis.evaluate import load_run
from rrsis.model import BTDNetForReferringSegmentation
from rrsis.processing import build_processor, build_tokenizer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run folder with the smallest Swin model that has shifted and padded windows."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["the red square"], max_tokens=12)
    swin = {**MICRO["backbone_kwargs"], "depths": [2, 1, 1, 1], "window_size": 5}
    sizes = {"backbone_kwargs": swin, "decoder_layers": 1, "pixel_map_stride": 4, "detail_dim": 0}
    config = make_config("tiny", **{**MICRO, **sizes})
    config.text_config.vocab_size = len(tokenizer)
    folder = tmp_path_factory.mktemp("run")
    model = BTDNetForReferringSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.decoder.head.embedding[-1].parameters():
            parameter *= 300  # random weights are nearly indifferent
        model.decoder.head.target_bias.zero_()
        model.decoder.head.background_bias.zero_()
    model.save_pretrained(folder)
    build_processor(tokenizer, config.image_size, max_tokens=12).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def written(run_folder):
    path = run_folder / "packages" / "model.onnx"
    assert cli.main(["--model", str(run_folder), "--out", str(path), "--max_size", "160"]) == 0
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    return path


@pytest.mark.slow
def test_one_file_for_all_sizes_lengths_and_batches(run_folder, written):
    model, _ = load_run(run_folder, "cpu")
    model.encoder.image.accept_any_size()
    run = export_onnx.load(written)
    for batch, height, width, tokens in ((1, 64, 64, 6), (3, 96, 160, 12), (2, 160, 64, 2), (1, 128, 96, 3)):
        torch.manual_seed(height + tokens)
        pixels = torch.randn(batch, 3, height, width)
        words = torch.randint(model.config.text_config.vocab_size, (batch, tokens))
        mask = torch.ones_like(words)
        for index in range(batch):  # each its own length
            mask[index, max(1, tokens - 2 * index) :] = 0
        with torch.no_grad():
            due = model(pixels, words, mask).logits
        assert_close(run(pixels, words, mask), due, rtol=1e-4, atol=1e-4)
        if batch > 1 and tokens > 2:
            other = words.clone()
            other[-1, -1] += 1 if other[-1, -1] == 0 else -1
            assert_close(run(pixels, other, mask), due, rtol=1e-4, atol=1e-4), "padding is not read"


@pytest.mark.slow
def test_the_file_is_standard_onnx_and_says_what_a_server_has_to_know(written):
    model = onnx.load(written)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    metadata = {entry.key.removeprefix("rrsis."): entry.value for entry in model.metadata_props}
    assert metadata["image_size"] == "64 64"
    assert metadata["size_bounds"] == "64 160"
    assert metadata["token_bounds"] == "2 12"
    assert metadata["operators"] == ""
    assert metadata["tokenizer"].startswith("{")


@pytest.mark.slow
def test_the_snippet_of_the_docs_gives_the_probabilities_of_the_library(run_folder, written, tmp_path, monkeypatch):
    (snippet,) = re.findall(r"```python\n(import numpy.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    # A smooth image: Pillow and torch round differently where neighbours differ much.
    scene = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(scene).resize((120, 100), Image.Resampling.BICUBIC).save("scene.png")
    Path("model.onnx").symlink_to(written)
    variables = {}
    exec(compile(snippet, "docs/serving.md", "exec"), variables)
    model, processor = load_run(run_folder, "cpu")
    inputs = processor(Image.open("scene.png"), "the red ship")
    with torch.no_grad():
        (due,) = processor.post_process_probabilities(model(**inputs), [(100, 120)])
    assert due.std() > 0.05
    assert_close(torch.tensor(variables["probability"]), due, rtol=0, atol=0.02)
    assert variables["mask"].shape == (100, 120)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--device": "cuda"}, "device: got 'cuda', expected cpu for .onnx"),
        ({"--model": "does/not/exist"}, "model: no folder"),
        ({"--out": "model.ort"}, "expected a name that ends in .pt2 or .onnx"),
    ],
)
def test_command_line_says_what_is_wrong_and_writes_nothing(run_folder, tmp_path, capsys, changed, message):
    options = {"--model": str(run_folder), "--out": str(tmp_path / "out" / "model.onnx"), **changed}
    assert cli.main([word for option in options.items() for word in option]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_onnx, "REQUIRED", ("onnx", "no_such_runtime"))
    assert cli.main(["--model", str(run_folder), "--out", str(tmp_path / "model.onnx")]) == 2
    assert "out: .onnx needs no_such_runtime, not installed here (pip install 'rrsis[onnx]')" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_that_disagrees_is_not_left(run_folder, written, tmp_path, capsys, monkeypatch):
    model, processor = load_run(run_folder, "cpu")
    with torch.no_grad():
        model.decoder.head.target_bias += 1
    for part in (model, processor):
        part.save_pretrained(tmp_path / "other")
    monkeypatch.setattr(cli, "trace", lambda *_: SimpleNamespace(graph=SimpleNamespace(nodes=[])))
    monkeypatch.setattr(export_onnx, "write", lambda program, path, metadata: shutil.copy(written, path))
    out = tmp_path / "out" / "model.onnx"
    assert cli.main(["--model", str(tmp_path / "other"), "--out", str(out), "--max_size", "160"]) == 1
    assert "logits differ by" in capsys.readouterr().err
    assert not out.parent.exists()
