"""The ablation: every variant is trained with the same budget, once, and compared with the first."""

import json

import pytest
from micro import MICRO

from rrsis import ablate
from rrsis.comparison import Result, Run, read_runs, render_comparison
from rrsis.config import make_config


def test_every_variant_is_a_valid_configuration_of_its_own():
    configs = {name: make_config("tiny", **overrides) for name, overrides in ablate.VARIANTS.items()}
    plain = configs.pop("full").to_dict()
    for name, config in configs.items():
        assert config.to_dict() != plain, name


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two variants, two seeds, two steps each."""
    out = tmp_path_factory.mktemp("ablation")
    command = ["--out", str(out), "--variants", "full", "LAVT-style", "--seeds", "3", "4", "--max_steps", "2"]
    command += ["--train_scenes", "4", "--val_scenes", "2", "--test_scenes", "2", "--overrides", json.dumps(MICRO)]
    ablate.main([*command, "--device", "cpu"])
    return out / "tiny-hard-2", command


def test_the_comparison_has_every_run_and_what_made_it(finished):
    folder, _ = finished
    content = json.loads((folder / "comparison.json").read_text())
    assert [(run["variant"], run["seed"]) for run in content["runs"]] == [
        ("full", 3), ("full", 4), ("LAVT-style", 3), ("LAVT-style", 4)
    ]  # fmt: skip
    assert content["arguments"]["max_steps"] == 2
    assert str(folder.parent) not in (folder / "comparison.json").read_text(), "a path of this machine"
    for run in content["runs"]:
        metrics = json.loads((Run.of(folder, run["variant"], run["seed"]).folder / "metrics.json").read_text())
        assert run["mIoU"] == metrics["protocols"]["native"]["overall"]["mIoU"]
        assert metrics["steps"] == 2
        assert json.loads(metrics["arguments"]["config_overrides"]) == {**MICRO, **ablate.VARIANTS[run["variant"]]}
    assert (folder / "comparison.png").stat().st_size > 1000
    assert "| LAVT-style | 2 |" in (folder / "comparison.md").read_text()


def test_complete_runs_are_not_repeated(finished, monkeypatch):
    folder, command = finished
    monkeypatch.setattr(ablate, "train_run", lambda *_args: pytest.fail("trained again"))
    before = (folder / "comparison.md").read_text()
    ablate.main([*command, "--device", "cpu"])
    assert (folder / "comparison.md").read_text() == before


def test_a_failing_run_is_named_with_the_end_of_its_log(tmp_path):
    command = ["--out", str(tmp_path), "--variants", "full", "--seeds", "5", "--max_steps", "1"]
    with pytest.raises(SystemExit, match=r"(?s)full, seed 5 failed with exit status 1:.*bsc_num_heads must have 4"):
        ablate.main([*command, "--overrides", '{"bsc_num_heads": [1]}'])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "no nose"], "--variants: got 'no nose'"),
        (["--max_steps", "0"], "--max_steps: got 0, due is at least 1"),
        (["--overrides", "nonsense"], "--overrides: got 'nonsense', due is JSON"),
        (["--overrides", "[1]"], "due is a JSON object"),
    ],
)
def test_bad_input_ends_with_one_line_and_writes_nothing(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message.replace("[", r"\[")):
        ablate.main(["--out", str(tmp_path / "none"), *arguments])
    assert not (tmp_path / "none").exists()


def _result(variant, seed, miou, curve=()):
    figures = {"oIoU": 0.5, "mIoU": miou, "Pr@0.5": 0.5, "selection": 0.7}
    return Result(Run(variant, seed, None), figures, {"relation": 0.5}, list(curve), 60.0)


def test_differences_are_taken_seed_by_seed():
    # Seeds differ by 10 points, variants by 2: paired, the deviation of the difference is 0.
    results = [_result("full", seed, 0.5 + 0.1 * seed) for seed in range(3)]
    results += [_result("less", seed, 0.48 + 0.1 * seed) for seed in range(3)]
    rows = [line for line in render_comparison(results).splitlines() if line.startswith("| less")]
    assert "58.0 ± 10.0" in rows[0]
    assert "-2.0 ± 0.0" in rows[0]


def test_a_single_seed_has_no_deviation():
    assert "±" not in render_comparison([_result("full", 0, 0.5)])


def test_incomplete_runs_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_runs([Run.of(tmp_path, "full", 0)])
