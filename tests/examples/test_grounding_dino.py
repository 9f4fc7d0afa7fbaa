"""examples/grounding_dino.py on a small folder of random weights: its report, that both forms agree, its refusals."""

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino", exc_type=ImportError)

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = "a ship. a long bridge."


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield importlib.import_module("grounding_dino")


@pytest.fixture(scope="module")
def folder(example, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small"
    importlib.import_module("random_grounding_dino").write(path, "small")
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "scene.png"
    pixels = torch.randint(0, 255, (48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(path)
    return path


def run(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["grounding_dino.py", *map(str, arguments)])
    example.main()


def test_it_prints_both_forms_and_their_difference(example, folder, image, monkeypatch, capsys):
    run(example, monkeypatch, "--model", folder, "--image", image, "--text", TEXT, "--rounds", 2)
    out = capsys.readouterr().out
    assert "RANDOM weights" in out
    assert "image 96 x 128" in out
    for name in example.VARIANTS:
        times = re.search(rf"^{name} +([\d.]+) +([\d.]+) +([\d.]+) +2 +(\d+|unknown)$", out, re.MULTILINE)
        assert times, out
        assert all(float(times[column]) > 0 for column in (1, 2, 3))
    difference = re.search(r"logits ([\d.e+-]+) \(largest logit ([\d.]+)\), boxes ([\d.e+-]+) of", out)
    assert 0 < float(difference[1]) < 1e-3 * float(difference[2]), "0: nothing was swapped"
    assert float(difference[3]) < 1e-4


def test_the_model_ends_as_shipped_and_boxes_and_logits_hang_on_the_fusion(example, folder, image):
    model, inputs = example.load(folder, image, TEXT)
    classes = [type(module) for module in model.modules()]
    shipped = example.compare(model, inputs, rounds=1)["transformers"]
    assert [type(module) for module in model.modules()] == classes
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("vision_param", "text_param")):
                parameter.zero_()
    unfused = example.compare(model, inputs, rounds=1)["transformers"]
    assert example.largest_difference(shipped.logits, unfused.logits) > 0.1
    assert example.largest_difference(shipped.boxes, unfused.boxes) > 1e-3


def test_an_mm_grounding_dino_is_compared_too(example, folder, image, tmp_path):
    small = importlib.import_module("random_grounding_dino").small_options()
    mm_model = transformers.MMGroundingDinoForObjectDetection(transformers.MMGroundingDinoConfig(**small))
    shutil.copytree(folder, tmp_path / "mm")
    mm_model.save_pretrained(tmp_path / "mm")
    model, inputs = example.load(tmp_path / "mm", image, TEXT)
    results = example.compare(model, inputs, rounds=1)
    assert type(model) is type(mm_model)
    assert example.largest_difference(*(result.logits for result in results.values())) < 1e-3


def test_masked_places_of_the_text_must_be_the_same(example):
    logits = torch.tensor([1.0, -torch.inf])
    assert example.largest_difference(logits, torch.tensor([1.5, -torch.inf])) == 0.5
    assert example.largest_difference(logits, torch.tensor([1.0, 2.0])) == float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "--model: nowhere is no folder"),
        (["--model", "nowhere", "--random", "small"], "not allowed with argument"),
        (["--random", "small", "--rounds", "0"], "got '0', due is a number from 1 on"),
        ([], "one of the arguments --model --random is required"),
    ],
)
def test_wrong_arguments_are_named(example, image, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run(example, monkeypatch, *arguments, "--image", image, "--text", TEXT)
    assert message in capsys.readouterr().err


def test_a_folder_that_is_there_is_left_alone(example, folder):
    before = sorted(folder.iterdir())
    with pytest.raises(FileExistsError, match="is there already"):
        importlib.import_module("random_grounding_dino").write(folder, "small")
    assert sorted(folder.iterdir()) == before
