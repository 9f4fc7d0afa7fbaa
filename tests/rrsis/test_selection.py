"""Selection rate: a model that marks the right object scores 1, whatever the outline."""

from types import SimpleNamespace

import pytest
import torch

from rrsis.data.synthetic import SynthRRSIS
from rrsis.processing import build_processor, build_tokenizer
from rrsis.selection import chosen_object, selection_rate


def test_the_highest_mean_wins_and_not_the_largest_sum():
    labels = torch.zeros(8, 8, dtype=torch.uint8)
    labels[0:4, 0:4], labels[6:8, 6:8] = 1, 2  # a large and a small object
    logits = torch.full((8, 8), -9.0)
    logits[0:4, 0:4], logits[6:8, 6:8] = 0.0, 2.0
    assert chosen_object(logits, labels) == 1
    logits[0:4, 0:4] = 3.0
    assert chosen_object(logits, labels) == 0


def test_the_ground_does_not_count_and_must_not_be_all():
    labels = torch.zeros(4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="got no object"):
        chosen_object(torch.zeros(4, 4), labels)
    labels[0, 0] = 3  # objects 0 and 1 are hidden
    assert chosen_object(torch.full((4, 4), 9.0), labels) == 2


class _Marker(torch.nn.Module):
    """Marks the middle of the referred object (or of another one) and nothing else."""

    device = torch.device("cpu")

    def __init__(self, dataset, wrong=()):
        super().__init__()
        self.dataset, self.wrong, self.index = dataset, set(wrong), 0

    def forward(self, pixel_values, input_ids, attention_mask):
        logits = torch.full((len(pixel_values), 128, 128), -9.0)
        for logit in logits:
            number, which = self.dataset.locate(self.index)
            scene = self.dataset.scene(number)
            chosen = scene.statements[which].referent
            if self.index in self.wrong:
                chosen = (chosen + 1) % len(scene.objects)
            mask = torch.from_numpy(scene.mask(chosen))
            logit[mask] = 1.0
            self.index += 1
        return SimpleNamespace(logits=logits)


def test_every_choice_is_counted_under_its_kind():
    dataset = SynthRRSIS("val", num_scenes=3, config="hard")
    processor = build_processor(build_tokenizer(dataset.expressions, 24), image_size=128, max_tokens=24)
    assert selection_rate(_Marker(dataset), processor, dataset, 5, progress=False)["selection_rate"] == 1.0
    result = selection_rate(_Marker(dataset, wrong=[0, 7]), processor, dataset, 5, progress=False)
    assert result["selection_rate"] == pytest.approx(1 - 2 / 12)
    assert result["num_expressions"] == 12
    kind = dataset[0].kind
    assert result["by_kind"][kind] < 1
