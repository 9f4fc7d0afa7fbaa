"""A model with a known answer; a module of its own, since `conftest` names one file in each folder of tests."""

from types import SimpleNamespace

import torch


class RedDetector(torch.nn.Module):
    """Has the model's interface and a known answer: red pixels, whatever the expression says.

    It works at half the input's resolution, undoes the processor's normalisation and thresholds the red channel at 0.5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(20.0))
        self.modes = []

    def forward(self, pixel_values, input_ids, attention_mask):
        assert len(pixel_values) == len(input_ids) == len(attention_mask)
        self.modes.append((self.training, torch.is_grad_enabled()))
        red = pixel_values[:, 0] * 0.229 + 0.485
        red = torch.nn.functional.avg_pool2d(red[:, None], 2)[:, 0]
        return SimpleNamespace(logits=self.gain * (red - 0.5))
