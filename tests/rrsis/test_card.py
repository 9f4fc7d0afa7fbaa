"""rrsis.card: a model card without a claim that was not measured on these very weights."""

import json
import os
import re

import pytest
from huggingface_hub import ModelCard
from transformers import PreTrainedModel

from rrsis.architectures import load_model, make_model
from rrsis.card import MARK, main, write_card
from rrsis.checkpoints import MANIFEST
from rrsis.config import make_config

METRICS = {
    "dataset": "synthetic",
    "split": "test",
    "num_expressions": 400,
    "protocols": {
        "native": {"overall": {"oIoU": 0.41234, "mIoU": 0.45, "Pr@0.5": 0.5, "Pr@0.7": 0.25, "Pr@0.9": 0.0}},
        "rmsin": {"overall": {"oIoU": 0.40987, "mIoU": 0.44}},
    },
    "seed": 42,
    "commit": "abc123",
    "steps": 600,
}


@pytest.fixture
def run(micro_config, tmp_path):
    """A model's folder, not evaluated."""
    make_model(micro_config).save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def evaluate(folder):
    (folder / "metrics.json").write_text(json.dumps(METRICS))


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_new_model_claims_nothing(run):
    text = card(run)
    assert "Nothing yet on these weights" in text
    assert "64 × 64 pixels" in text
    assert "own reading" in " ".join(text.split())
    data = ModelCard.load(run / "README.md").data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-segmentation"
    assert not re.search(r"\d\d\.\d\d(?!\d)", text.replace("2502.08486", ""))


def test_figures_stand_beside_their_protocol(run, capsys):
    evaluate(run)
    assert main([str(run)]) == 0
    assert "| `native` | 41.23 | 45.00 | 50.00 | 25.00 | 0.00 |" in card(run)
    assert "| `rmsin` | 40.99 | 44.00 |  |  |  |" in card(run)
    assert "synthetic, split test, 400 expressions" in card(run)
    assert "seed 42, steps 600, commit abc123." in card(run)
    assert "wrote" in capsys.readouterr().out


def test_later_evaluations_stand_there_too(run, micro_config):
    evaluate(run)
    (run / "evaluation-rrsisd-val").mkdir()
    (run / "evaluation-rrsisd-val" / "metrics.json").write_text(
        json.dumps({**METRICS, "dataset": "rrsisd", "split": "val", "num_expressions": 7})
    )
    write_card(run, micro_config)
    assert card(run).index("synthetic, split test, 400") < card(run).index("rrsisd, split val, 7 expressions")


def test_the_same_weights_keep_their_figures_wherever_they_go(run, tmp_path):
    evaluate(run)
    model = load_model(run)
    model.save_pretrained(tmp_path / "copy")
    model.save_pretrained(run)
    assert "41.23" in card(tmp_path / "copy")
    assert "41.23" in card(run)


def test_other_weights_lose_them(run, tmp_path):
    evaluate(run)
    model = load_model(run)
    next(model.parameters()).data.add_(1.0)
    model.save_pretrained(tmp_path / "tuned")
    model.save_pretrained(run)
    for folder in (tmp_path / "tuned", run):
        assert "41.23" not in card(folder)
        assert "Nothing yet" in card(folder)


def test_figures_older_than_the_weights_are_not_theirs(run, micro_config):
    evaluate(run)
    os.utime(run / "metrics.json", (1, 1))
    write_card(run, micro_config)
    assert "Nothing yet" in card(run)
    evaluate(run)
    (run / "metrics.json").write_text("{broken")
    write_card(run, micro_config)
    assert "Nothing yet" in card(run)


def test_what_a_person_wrote_is_left_alone(run, capsys):
    assert MARK in card(run)
    (run / "README.md").write_text("# Mine")
    load_model(run).save_pretrained(run)
    assert card(run) == "# Mine"
    assert main([str(run)]) == 2
    assert "left alone" in capsys.readouterr().err
    assert main([str(run / "nowhere")]) == 2


def test_a_sealed_checkpoint_is_not_changed(run, capsys):
    before = card(run)
    evaluate(run)
    (run / MANIFEST).write_text("{}")
    assert main([str(run)]) == 2
    assert "sealed checkpoint" in capsys.readouterr().err
    assert card(run) == before


def test_processes_that_are_not_the_first_write_none(micro_config, tmp_path):
    make_model(micro_config).save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "README.md").exists()


def test_the_baselines_card_names_the_baseline(tmp_path):
    write_card(tmp_path, make_config("tiny", architecture="lavt"))
    assert "# LAVT-style baseline" in card(tmp_path)
    assert "twin-stream" not in card(tmp_path)


def test_the_printed_lines_run(tiny_run, tmp_path, monkeypatch, red_square):
    from PIL import Image

    (code,) = re.findall(r"```python\n(.*?)```", card(tiny_run), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / tiny_run.name).symlink_to(tiny_run)
    Image.fromarray(red_square()[0]).save("scene.png")
    exec(compile(code, "README.md", "exec"), {})
    assert Image.open("mask.png").size == (64, 64)


def test_push_to_hub_is_transformers_own(micro_config):
    assert type(make_model(micro_config)).push_to_hub is PreTrainedModel.push_to_hub
