"""transformers finds this package's classes: Auto classes and the pipeline."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

import rrsis
from rrsis.architectures import MODELS
from rrsis.auto import register
from rrsis.config import ARCHITECTURES
from rrsis.evaluate import load_run
from rrsis.lavt import LAVTForReferringSegmentation
from rrsis.predict import predict


@pytest.fixture(scope="module")
def pipe(tiny_run):
    return pipeline("referring-segmentation", model=str(tiny_run), device="cpu")


@pytest.fixture
def scene(red_square):
    return red_square((90, 120), (20, 30, 50, 70))[0]


def test_importing_the_package_is_enough(tiny_run):
    code = (
        "import rrsis, sys; from transformers import AutoModel, pipeline; "
        "print(type(AutoModel.from_pretrained(sys.argv[1])).__name__); "
        "print(type(pipeline('referring-segmentation', model=sys.argv[1], device='cpu')).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_run)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["BTDNetForReferringSegmentation", "ReferringSegmentationPipeline"]


def test_auto_classes_load_a_run_folder(tiny_run):
    assert type(AutoConfig.from_pretrained(tiny_run)) is rrsis.BTDNetConfig
    assert type(AutoProcessor.from_pretrained(tiny_run)) is rrsis.BTDNetProcessor
    model, plain = AutoModel.from_pretrained(tiny_run), load_run(tiny_run, "cpu")[0]
    assert type(model) is rrsis.BTDNetForReferringSegmentation
    assert all(torch.equal(model.state_dict()[name], value) for name, value in plain.state_dict().items())


def test_auto_model_tells_the_baseline_from_the_model(micro_config, tmp_path):
    config = rrsis.make_config("tiny", **{**_fields(micro_config), "architecture": "lavt"})
    assert type(AutoModel.from_config(config)) is LAVTForReferringSegmentation
    LAVTForReferringSegmentation(config).save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is LAVTForReferringSegmentation


def _fields(config):
    return {name: getattr(config, name) for name in ("image_size", "backbone_kwargs", "text_config", "decoder_dim")}


def test_the_configuration_names_the_classes_that_there_are():
    assert {name: model.__name__ for name, model in MODELS.items()} == ARCHITECTURES


def test_runs_without_architectures_in_their_configuration_load(tiny_run, tmp_path):
    for file in tiny_run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(AutoModel.from_pretrained(tmp_path)) is rrsis.BTDNetForReferringSegmentation


def test_registering_again_changes_nothing(tiny_run):
    register()
    assert type(AutoModel.from_pretrained(tiny_run)) is rrsis.BTDNetForReferringSegmentation


def test_pipeline_says_what_predict_says(pipe, tiny_run, scene):
    model, processor = load_run(tiny_run, "cpu")
    threshold = float(np.median(predict(model, processor, scene, "the red square")[0].probability))
    (expected,) = predict(model, processor, scene, "the red square", threshold=threshold)
    found = pipe(scene, "the red square", threshold=threshold)
    assert found["label"] == "the red square"
    assert found["mask"].mode == "L"
    assert found["mask"].size == (120, 90)
    assert np.array_equal(np.asarray(found["mask"]) > 0, expected.mask)
    assert 0 < expected.mask.mean() < 1
    assert found["score"] == pytest.approx(expected.score, rel=1e-5)
    assert pipe(scene, "the red square", threshold=0.999999)["score"] == 0.0


def test_pipeline_takes_every_kind_of_image(pipe, scene, tmp_path):
    Image.fromarray(scene).save(tmp_path / "scene.png")
    results = [
        pipe(image, "the nothing", threshold=1e-3)
        for image in (scene, Image.fromarray(scene), tmp_path / "scene.png", str(tmp_path / "scene.png"))
    ]
    assert all(result["score"] == results[0]["score"] for result in results)


def test_pipeline_takes_many(pipe, scene):
    expressions = ["the red square", "the red square on the left", "the nothing"]
    one_by_one = [pipe(scene, expression, threshold=1e-3) for expression in expressions]
    together = pipe(scene, expressions, threshold=1e-3, batch_size=2)
    other = np.zeros((30, 50, 3), np.uint8)
    items = ({"image": image, "expression": expressions[0]} for image in (scene, other, scene))
    stream = list(pipe(items, threshold=1e-3, batch_size=2))
    assert [result["label"] for result in together] == expressions
    for batched, single in zip(
        [*together, stream[0], stream[2]], [*one_by_one, one_by_one[0], one_by_one[0]], strict=True
    ):
        assert batched["score"] == pytest.approx(single["score"], rel=1e-4)
    assert stream[1]["mask"].size == (50, 30)


@pytest.mark.parametrize(
    ("image", "expression", "options", "message"),
    [
        (np.zeros((9, 9), np.uint8), "ship", {}, "image: expected"),
        (np.zeros((9, 9, 3), np.uint8), "?", {}, "expected words"),
        (np.zeros((9, 9, 3), np.uint8), "ship", {"threshold": 1.0}, "threshold: got 1.0"),
    ],
)
def test_pipeline_refuses_what_is_not_valid(pipe, image, expression, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(image, expression, **options)
    with pytest.raises(FileNotFoundError, match="no file"):
        pipe("missing.png", "ship")


def test_the_readmes_lines_run_as_printed(tiny_run, tmp_path, monkeypatch):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "pipeline(" in block]
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40)).save("scene.png")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "synthetic-tiny-seed42").symlink_to(tiny_run)
    *lines, last = code.strip().splitlines()
    names = {}
    exec(compile("\n".join(lines), "README.md", "exec"), names)
    assert [set(result) for result in eval(last, names)] == [{"label", "score", "mask"}] * 2
