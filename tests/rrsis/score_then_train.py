"""For several processes: scores five samples with a model whose answers are known, then trains. One launch for both."""

import json
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import rrsis._torchvision  # noqa: F401 (first, as tests/conftest.py does)
from rrsis.arguments import RunArguments
from rrsis.collate import ReferringCollator
from rrsis.data.types import ReferringSample
from rrsis.processing import build_processor, build_tokenizer
from rrsis.train import main
from rrsis.trainer import ReferringTrainer


class RedDetector(torch.nn.Module):
    """Red pixels, whatever the expression says."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(20.0))

    def forward(self, pixel_values, **inputs):
        logits = self.gain * (pixel_values[:, 0] * 0.229 + 0.485 - 0.5)
        return SimpleNamespace(logits=logits, loss=logits.mean())


def samples():
    """Five images of different sizes in which the red square covers more and more of the object."""
    for index in range(5):
        image = np.zeros((40 + 8 * index, 64, 3), dtype=np.uint8)
        image[8:24, 8 : 16 + 8 * index] = (255, 0, 0)
        mask = np.zeros(image.shape[:2], dtype=bool)
        mask[8:24, 8:48] = True
        yield ReferringSample(image, "the red square", mask, str(index), str(index))


def score(batch_size=2):
    """Metrics of the trainer's evaluation; more samples than processes × batches can share evenly."""
    processor = build_processor(build_tokenizer(["the red square"], 8), image_size=64, max_tokens=8)
    with tempfile.TemporaryDirectory() as folder:
        arguments = RunArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_eval_batch_size=batch_size,
            ddp_backend="gloo" if "RANK" in os.environ else None,
            eval_strategy="no",
            load_best_model_at_end=False,
        )
        trainer = ReferringTrainer(
            model=RedDetector(), args=arguments, data_collator=ReferringCollator(processor), processing_class=processor
        )
        metrics = trainer.evaluate(list(samples()))
    return {name: value for name, value in metrics.items() if name.startswith(("eval_oIoU", "eval_mIoU", "eval_Pr"))}


if __name__ == "__main__":
    metrics = score()
    if os.environ["RANK"] == "0":
        Path(os.environ["RRSIS_TEST_SCORES"]).write_text(json.dumps(metrics))
    main(sys.argv[1:])
