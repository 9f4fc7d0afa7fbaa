"""Training from the command line: what a run leaves, resuming, several processes, bad input."""

import errno
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import STEPS, arguments, losses, start, wait

from rrsis.checkpoints import find_checkpoint
from rrsis.train import main, parse_arguments, prepare


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A whole run in a process of its own, as a user starts it."""
    folder = tmp_path_factory.mktemp("train") / "run"
    wait(start(arguments(folder)))
    return folder


def test_a_run_leaves_what_the_readme_promises(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "metrics.json",
        "curves.png",
        "samples.png",
    } <= names
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["steps"] == STEPS
    assert metrics["seed"] == 42
    assert "commit" in metrics
    card = (finished_run / "README.md").read_text()
    assert "native" in card, "figures of these weights, each beside its protocol"
    for protocol in ("native", "rmsin"):
        overall = metrics["protocols"][protocol]["overall"]
        assert overall["protocol"] == protocol
        assert {"oIoU", "mIoU", "Pr@0.5", "Pr@0.9"} <= overall.keys()


def test_the_best_weights_are_the_ones_kept(finished_run):
    state = json.loads((finished_run / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    scores = {entry["step"]: entry["eval_oIoU"] for entry in state["log_history"] if "eval_oIoU" in entry}
    assert list(scores) == [2, 4, 6]
    assert state["best_metric"] == max(scores.values())
    best = load_file(finished_run / f"checkpoint-{state['best_global_step']}" / "model.safetensors")
    kept = load_file(finished_run / "model.safetensors")
    assert all(torch.equal(kept[name], best[name]) for name in best)


@pytest.mark.slow
def test_resuming_after_a_kill_reaches_the_same_weights(finished_run, tmp_path):
    folder = tmp_path / "run"
    killed = start(arguments(folder))
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint-2" / "trainer_state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (folder / f"checkpoint-{STEPS}").exists(), "the run ended before it was killed: nothing was tested"
    wait(start(arguments(folder, resume_from_checkpoint="last")))
    assert losses(folder) == losses(finished_run)
    expected = load_file(finished_run / f"checkpoint-{STEPS}" / "model.safetensors")
    got = load_file(folder / f"checkpoint-{STEPS}" / "model.safetensors")
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def truncate(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def test_a_run_says_that_its_newest_checkpoint_is_damaged_and_continues_from_the_one_before(
    finished_run, tmp_path, caplog, one_thread
):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    expected = load_file(folder / f"checkpoint-{STEPS}" / "model.safetensors")
    truncate(folder / f"checkpoint-{STEPS}" / "optimizer.pt")
    main(arguments(folder, resume_from_checkpoint="last"))
    assert f"checkpoint-{STEPS} cannot be used: optimizer.pt has" in caplog.text
    assert f"continuing from {folder}/checkpoint-{STEPS - 2}" in caplog.text
    assert losses(folder) == losses(finished_run)
    got = load_file(folder / f"checkpoint-{STEPS}" / "model.safetensors")
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert {path.name for path in folder.glob("*checkpoint*")} == {f"checkpoint-{step}" for step in (2, 4, 6)}


def test_a_full_disk_ends_the_run_with_the_checkpoint_before_whole(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def save(content, path, *args, write=torch.save, **kwargs):
        if "checkpoint-4" in str(path) and Path(path).name == "scheduler.pt":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(SystemExit, match=r"checkpoint-4 could not be written: .*No space left on device") as caught:
        main(arguments(folder))
    assert "newest whole checkpoint is checkpoint-2" in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]
    assert find_checkpoint("last", str(folder)) == str(folder / "checkpoint-2")


def test_flipped_pictures_bring_their_words_along(tmp_path):
    trainer, splits = prepare(*parse_arguments(arguments(tmp_path / "run", flip="rewrite")))
    words = set(trainer.processing_class.tokenizer.get_vocab())
    assert set(" ".join(trainer.train_dataset.possible_expressions).split()) <= words
    assert len(words) >= len(set(" ".join(splits["train"].expressions).split()))
    first = [trainer.train_dataset[index].image.tobytes() for index in range(8)]
    trainer.state.epoch = 1.0
    trainer.callback_handler.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    assert [trainer.train_dataset[index].image.tobytes() for index in range(8)] != first


def test_trains_under_autocast(finished_run, tmp_path):
    main(arguments(tmp_path / "run", bf16=True))
    torch.testing.assert_close(losses(tmp_path / "run"), losses(finished_run), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--dataset", "rrsisd"], "--data_root must name the folder of rrsisd"),
        (["--config_overrides", "{"], "--config_overrides must be JSON"),
        (["--config_overrides", '{"loss_stride": 3}'], "loss_stride must be 1 or 2"),
        (["--text_model", "nowhere"], "text_model must be a folder"),
        (["--backbone_weights", "nowhere.pth"], "backbone_weights must be a file"),
        (["--resume_from_checkpoint", "last"], "holds no complete checkpoint"),
        (["--validation_split", "test"], "weights are never chosen on test; got test"),
    ],
)
def test_bad_input_ends_with_one_line_before_anything_is_written(tmp_path, extra, message):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit, match=message):
        main(["--output_dir", str(folder), "--train_scenes", "2", "--max_steps", "1", *extra])
    assert not folder.exists()


def test_an_older_run_is_not_overwritten(tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(SystemExit, match="--output_dir must be empty or new"):
        main(["--output_dir", str(tmp_path)])
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_a_default_name_that_is_taken_gets_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_arguments([])[2].output_dir == "runs/synthetic-tiny-seed42"
    Path("runs/synthetic-tiny-seed42/x").mkdir(parents=True)
    assert parse_arguments([])[2].output_dir == "runs/synthetic-tiny-seed42-2"


@pytest.mark.parametrize(
    ("gpu", "words", "expected"),
    [
        (True, [], True),
        (False, [], False),
        (True, ["--bf16", "False"], False),
        (True, ["--bf16=False"], False),
        (True, ["--fp16"], False),
        (True, ["--use_cpu"], False),
    ],
)
def test_mixed_precision_is_the_default_where_the_gpu_has_it(monkeypatch, gpu, words, expected):
    monkeypatch.setattr("rrsis.arguments.gpu_has_bf16", lambda: gpu)
    try:
        chosen = parse_arguments(["--output_dir", "unused", *words])[2].bf16
    except ValueError as error:  # transformers', of a machine without such a GPU
        chosen = "bf16" in str(error)
    assert chosen is expected


def test_a_preset_brings_its_recipe_and_the_command_line_wins():
    base = parse_arguments(["--preset", "base", "--output_dir", "unused", "--learning_rate", "5e-5"])[2]
    assert (base.learning_rate, base.weight_decay, base.num_train_epochs) == (5e-5, 1e-2, 40)


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_of_a_compiled_model_are_all_as_long(tmp_path, compiled):
    trainer, splits = prepare(*parse_arguments(arguments(tmp_path / "run", torch_compile=compiled)))
    longest = trainer.processing_class.max_tokens
    lengths = {trainer.data_collator([splits["train"][index]])["input_ids"].shape[1] for index in range(4)}
    assert (lengths == {longest}) == compiled
