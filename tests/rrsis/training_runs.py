"""Runs of a few seconds: their command lines, in this process or another, and what they wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

from micro import MICRO

STEPS = 6


def arguments(folder, batch=4, overrides=None, **options):
    """The command line of a run of a few seconds."""
    options = {
        "output_dir": folder,
        "config_overrides": json.dumps({**MICRO, **(overrides or {})}),
        "train_scenes": 10,
        "val_scenes": 3,
        "test_scenes": 3,
        "max_steps": STEPS,
        "save_steps": 2,
        "eval_steps": 2,
        "save_total_limit": 5,
        "logging_steps": 1,
        "per_device_train_batch_size": batch,
        "use_cpu": True,
        **options,
    }
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def start(module_arguments, launcher=("-m", "rrsis.train"), **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *launcher, *module_arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_two(script, module_arguments, **variables):
    """Two processes of a script of this folder, under torchrun."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    return start(module_arguments, (*launcher, str(Path(__file__).with_name(script))), **variables)


def wait(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return output


def losses(folder):
    state = json.loads((Path(folder) / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]
