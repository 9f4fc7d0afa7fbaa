"""Runs of a few seconds: their command lines, in this process or another, and what they wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

MICRO = {
    "image_size": 64,
    "backbone": "swin_tiny_patch4_window7_224",
    "decoder_dim": 16,
    "decoder_heads": 2,
    "decoder_ffn_dim": 16,
    "num_queries": 2,
    "bsc_num_heads": [2, 2, 2, 2],
    "bsc_embed_dims": [8, 8, 8, 8],
    "backbone_kwargs": {
        "img_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "drop_path_rate": 0.0,
    },
    "text_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
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
