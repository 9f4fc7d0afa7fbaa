"""Several processes give what one gives, with DDP and FSDP2; a killed one costs no more than its steps."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from score_then_train import score
from training_runs import STEPS, arguments, losses, start_two, wait

from rrsis.averaging import TRAINING_WEIGHTS
from rrsis.train import main
from rrsis.trainer import check_sharding

PLAIN = {"use_reconstruction": False}
"""Without D-MOLS, which draws what it hides anew for every batch: losses can be compared."""


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "plain"
    main(arguments(folder, overrides=PLAIN))
    return folder


def assert_same_training(folder, plain_run):
    torch.testing.assert_close(losses(folder), losses(plain_run), rtol=1e-3, atol=1e-4)
    names = ("eval_loss", "eval_oIoU", "eval_mIoU")
    got, expected = (
        [
            [entry[name] for name in names]
            for entry in json.loads((run / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())["log_history"]
            if "eval_loss" in entry
        ]
        for run in (folder, plain_run)
    )
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_accumulated_batches_give_the_loss_of_one(plain_run, tmp_path):
    main(arguments(tmp_path / "run", batch=2, overrides=PLAIN, gradient_accumulation_steps=2))
    assert_same_training(tmp_path / "run", plain_run)


@pytest.mark.slow
def test_two_processes_give_the_loss_and_the_metrics_of_one(plain_run, tmp_path):
    scores = tmp_path / "scores.json"
    command = arguments(tmp_path / "run", batch=2, overrides=PLAIN, ddp_backend="gloo")
    wait(start_two("score_then_train.py", command, RRSIS_TEST_SCORES=str(scores)))
    assert_same_training(tmp_path / "run", plain_run)
    # Five samples, two processes, two a batch: one that is counted twice would show.
    expected = score()
    assert 0 < expected["eval_oIoU"] < expected["eval_Pr@0.5"] + 0.3
    assert json.loads(scores.read_text()) == expected


@pytest.mark.slow
def test_sharded_weights_train_as_whole_ones_and_outlive_a_killed_process(plain_run, tmp_path):
    folder = tmp_path / "run"
    options = {"ddp_backend": "gloo", "fsdp": True, "ema_decay": 0.5, "gradient_checkpointing": True}
    command = arguments(folder, batch=2, overrides=PLAIN, **options)
    killed = start_two("train_sharded_on_cpu.py", command, RRSIS_TEST_KILL_AT="4")
    killed.communicate(timeout=240)
    assert killed.returncode != 0
    assert not (folder / f"checkpoint-{STEPS}").exists()
    wait(start_two("train_sharded_on_cpu.py", [*command, "--resume_from_checkpoint", "last"]))
    torch.testing.assert_close(losses(folder), losses(plain_run), rtol=1e-3, atol=1e-4)
    trained = load_file(folder / f"checkpoint-{STEPS}" / TRAINING_WEIGHTS)
    expected = load_file(plain_run / f"checkpoint-{STEPS}" / "model.safetensors")
    for name, weight in trained.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=2e-3, msg=name)
    averaged = load_file(folder / "model.safetensors")
    assert averaged.keys() == expected.keys()
    assert json.loads((folder / "metrics.json").read_text())["steps"] == STEPS


@pytest.mark.parametrize(
    ("is_sharded", "kind", "message"),
    [
        (False, "FULL_STATE_DICT", "--fsdp needs accelerators: on cpu accelerate would train with DDP"),
        (
            True,
            "SHARDED_STATE_DICT",
            "--fsdp_config must leave state_dict_type at FULL_STATE_DICT; got SHARDED_STATE_DICT",
        ),
    ],
)
def test_sharding_that_would_not_do_its_work_is_refused(is_sharded, kind, message):
    plugin = SimpleNamespace(state_dict_type=SimpleNamespace(name=kind))
    trainer = SimpleNamespace(
        args=SimpleNamespace(fsdp=True, device="cpu"),
        is_fsdp_enabled=is_sharded,
        accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)),
    )
    with pytest.raises(ValueError, match=message):
        check_sharding(trainer)


def test_one_process_has_nothing_to_shard_over(tmp_path):
    with pytest.raises(SystemExit, match="fsdp only works in distributed training"):
        main(arguments(tmp_path / "run", fsdp=True))
    assert not (tmp_path / "run").exists()
