"""What a user who gave no run, or a wrong one, is told to type; and what `python -m` must not load twice."""

import os
import subprocess
import sys

import pytest

from rrsis import evaluate, export, predict
from rrsis.app import __main__ as app
from rrsis.run_folders import check_run_folder, known_runs


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder, where the user stands, and a way to put runs into it."""
    monkeypatch.chdir(tmp_path)

    def add(name, age, weights=True):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
        if weights:
            (folder / "model.safetensors").touch()
            os.utime(folder / "model.safetensors", (1_000_000 - age, 1_000_000 - age))

    return add


COMMANDS = {
    "predict": lambda: predict.main(["--image", "a.png", "--expression", "ship"]),
    "scenes": lambda: predict.main(["a.tif", "--expression", "ship"]),
    "app": lambda: app.main([]),
    "export": lambda: export.main([]),
    "evaluate": lambda: evaluate.main([]),
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_without_a_model_the_commands_say_what_to_type(place, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(predict, "load_image", lambda path: None)
    assert COMMANDS[name]() == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'runs'} holds no run yet; python -m rrsis.train makes one" in said
    place("one", age=0)
    assert COMMANDS[name]() == 2
    assert f"--model {os.path.join('runs', 'one')}" in capsys.readouterr().err


def test_runs_are_named_newest_first(place):
    for age, name in enumerate("gfedcba"):
        place(name, age)
    place("unfinished", age=-1, weights=False)
    assert [run.name for run in known_runs()] == list("gfedcba")
    with pytest.raises(ValueError, match="newest first: runs.g, runs.f, runs.e, runs.d, runs.c, …$"):
        check_run_folder(None)


def test_a_wrong_folder_is_answered_with_the_runs_that_are_there(place, tmp_path):
    place("one", age=0)
    with pytest.raises(FileNotFoundError, match=r"no folder 'runs/two'.*there is one here: --model runs.one$"):
        check_run_folder("runs/two")
    with pytest.raises(FileNotFoundError, match=r"holds no config.json.*there is one here"):
        check_run_folder(tmp_path)
    assert check_run_folder("runs/one").name == "one"


def test_importing_rrsis_loads_no_command():
    # Else `python -m` warns that it is loaded a second time.
    code = "import rrsis, sys; print(*(name for name in sys.modules if name.startswith('rrsis.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "rrsis.pipeline" in loaded
    assert not {f"rrsis.{name}" for name in ("train", "evaluate", "predict", "export", "ablate", "card")} & set(loaded)
