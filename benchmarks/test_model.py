"""BTDNet as a whole: a training step and inference, with our kernels, with the reference, and without absorption."""

from functools import lru_cache

import torch

from benchmarks import measure, model_cases
from benchmarks.model_cases import INFERENCE, TRAINING

# Preset, mode, batch.
FULL = [
    ("tiny", TRAINING, 16),
    ("tiny", INFERENCE, 1),
    ("tiny", INFERENCE, 16),
    ("base", TRAINING, 1),
    ("base", INFERENCE, 1),
]
QUICK = [("tiny", TRAINING, 4), ("tiny", INFERENCE, 1)]
IMPLEMENTATIONS = model_cases.VARIANTS

ROUNDS = {"tiny": None, "base": 3}
"""A step of the large model takes many seconds."""


@lru_cache(maxsize=1)
def expected_of(preset, mode, batch):
    """What the reference gives; in fp32, since D-MOLS would draw other places in fp64."""
    return [tensor.double() for tensor in model_cases.MODES[mode](preset, model_cases.REFERENCE, batch)()]


def test_step(benchmark, shape, implementation):
    preset, mode, batch = shape
    expected = expected_of(*shape)
    torch.manual_seed(0)
    call = model_cases.MODES[mode](preset, implementation, batch)
    group = f"model {preset} {mode} B={batch} S={model_cases.image_size(preset)}"
    measure.run(
        benchmark, call, expected, group=group, implementation=implementation, rounds=ROUNDS[preset], shape=shape
    )
