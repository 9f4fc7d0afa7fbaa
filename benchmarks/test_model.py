"""BTDNet as a whole: a training step and inference, with our kernels, with the reference, and without absorption."""

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


def test_step(benchmark, shape, implementation):
    preset, mode, batch = shape
    make = model_cases.MODES[mode]
    # In fp32, since D-MOLS would draw other places in fp64.
    expected = measure.remember(
        shape, lambda: [tensor.double() for tensor in make(preset, model_cases.REFERENCE, batch)()]
    )
    group = f"model {preset} {mode} B={batch} S={model_cases.image_size(preset)}"
    measure.run(
        benchmark,
        make(preset, implementation, batch),
        expected,
        group=group,
        implementation=implementation,
        shape=shape,
    )
