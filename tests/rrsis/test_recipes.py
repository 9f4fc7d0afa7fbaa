"""Recipes: the committed ones run on data in the published layouts; the command line wins; mistakes are named."""

import json
from pathlib import Path

import pytest
from micro import MICRO

from rrsis.arguments import parse_arguments
from rrsis.data import SynthConfig, SynthRRSIS, write_layout
from rrsis.train import main

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
EXPECTED = {"refsegrs": (5e-5, 60), "rrsisd": (3e-5, 40), "risbench": (3e-5, 40)}


@pytest.fixture(scope="module")
def sources():
    return {
        split: SynthRRSIS(split, scenes, seed=5, config=SynthConfig(image_size=64))
        for split, scenes in {"train": 3, "val": 1, "test": 1}.items()
    }


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_recipe_says_how_its_data_set_is_trained(name):
    model, data, run = parse_arguments(["--config", str(RECIPES / f"{name}.yaml"), "--data_root", "DIR"])
    assert (run.learning_rate, run.num_train_epochs) == EXPECTED[name]
    assert (run.weight_decay, run.lr_scheduler_type, run.lr_scheduler_kwargs["power"]) == (1e-2, "polynomial", 0.9)
    assert (model.preset, data.dataset, data.data_root) == ("base", name, "DIR")
    assert run.output_dir.startswith(f"runs/{name}-base-seed42")


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_recipe_runs_on_its_published_layout(name, sources, tmp_path):
    root = write_layout(sources, name, tmp_path / "data")
    command = ["--config", str(RECIPES / f"{name}.yaml"), "--data_root", str(root)]
    small = ["--from_scratch", "--config_overrides", json.dumps(MICRO), "--max_steps", "2", "--use_cpu"]
    small += ["--dataloader_num_workers", "0", "--output_dir", str(tmp_path / "run"), "--disable_tqdm", "True"]
    main(command + small)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["dataset"], metrics["split"], metrics["steps"]) == (name, "test", 2)
    assert metrics["arguments"]["config"] == command[1]


def test_the_command_line_beats_the_file_and_the_file_beats_the_preset(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "preset: base\nlearning_rate: 7e-5\nseed: 3\ntf32: null\nbf16: false\n"
        "label_names: [labels, truths]\nconfig_overrides: {use_gate: false}\n"
    )
    model, _, run = parse_arguments(["--learning_rate", "1e-4", "--config", str(recipe)])
    assert (run.learning_rate, run.seed, run.bf16, run.label_names) == (1e-4, 3, False, ["labels", "truths"])
    assert run.num_train_epochs == 40  # the preset's
    assert json.loads(model.config_overrides) == {"use_gate": False}
    assert run.output_dir.startswith("runs/synthetic-base-seed3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learing_rate: 1", "recipe.yaml: there is no option 'learing_rate'; the nearest one is 'learning_rate'"),
        ("config: other.yaml", "there is no option 'config'"),
        ("seed: many", "recipe.yaml: argument --seed: invalid int value: 'many'"),
        ("preset: huge", "recipe.yaml: argument --preset: invalid choice: 'huge'"),
        ("- preset", "must hold `option: value` lines; got a list"),
        ("a: b: c", "must be a readable YAML file"),
        (None, "must be a readable YAML file"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(SystemExit, match="(?s)^rrsis.train: --config .*recipe.yaml") as caught:
        main(["--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "run")])
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_on_the_command_line_is_named():
    with pytest.raises(SystemExit, match="there is no option 'warmup_step'; the nearest one is 'warmup_steps'"):
        main(["--dataset=refsegrs", "--warmup_step=3"])
