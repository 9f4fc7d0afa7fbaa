"""D-MOLS: what it hides, what it scores, where its gradient goes."""

import pytest
import torch
from torch.testing import assert_close

from rrsis.reconstruction import DualModalReconstruction, draw_hidden_places


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 32, 32)
    labels[:, :16, :16] = 1
    token_mask = torch.ones(2, 6, dtype=torch.bool)
    token_mask[1, 4:] = False
    noun_mask = torch.zeros(2, 6, dtype=torch.bool)
    noun_mask[:, 3] = True
    return {
        "memory": torch.randn(2, 16, 8, 8, generator=generator, requires_grad=True),
        "tokens": torch.randn(2, 6, 16, generator=generator, requires_grad=True),
        "token_mask": token_mask,
        "labels": labels,
        "noun_mask": noun_mask,
    }


def test_hidden_places_keep_the_shares(micro_config):
    torch.manual_seed(0)
    share = torch.zeros(40, 1000)
    share[:, :300] = 1
    token_mask = torch.ones(40, 200, dtype=torch.bool)
    token_mask[:, 150:] = False
    noun_mask = torch.zeros_like(token_mask)
    noun_mask[:, 7] = True
    hidden = draw_hidden_places(share, token_mask, noun_mask, micro_config)
    assert abs(hidden.pixels[:, :300].float().mean() - micro_config.object_mask_ratio) < 0.02
    assert abs(hidden.pixels[:, 300:].float().mean() - micro_config.pixel_mask_ratio) < 0.02
    assert abs(hidden.tokens[:, 8:150].float().mean() - micro_config.word_mask_ratio) < 0.03
    assert hidden.tokens[:, 7].all(), "the noun is always hidden"
    assert not hidden.tokens[:, 0].any(), "[CLS] never"
    assert not hidden.tokens[:, 150:].any(), "padding never"


def test_gradients_reach_what_is_seen_and_not_the_targets(micro_config, inputs):
    torch.manual_seed(0)
    module = DualModalReconstruction(micro_config, 16)
    micro_config.object_mask_ratio = micro_config.pixel_mask_ratio = 1.0
    micro_config.word_mask_ratio = 0.0
    inputs["noun_mask"] = None
    loss = module(**inputs)
    loss.backward()
    # All pixels are hidden and no word is: the pixels are targets alone, the words are seen.
    assert not inputs["memory"].grad.any()
    assert inputs["tokens"].grad.any()
    assert module.pixel_token.grad.any()
    # No word is hidden, so nothing is asked of the words' side.
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in module.rebuild_tokens.parameters())
    assert 0 < loss < 1


def test_nothing_hidden_costs_nothing(micro_config, inputs):
    micro_config.object_mask_ratio = micro_config.pixel_mask_ratio = micro_config.word_mask_ratio = 0.0
    inputs["noun_mask"] = None
    assert_close(DualModalReconstruction(micro_config, 16)(**inputs), torch.zeros(()))


def test_learns_to_rebuild(micro_config, inputs):
    torch.manual_seed(0)
    module = DualModalReconstruction(micro_config, 16)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    frozen = {name: value.detach() for name, value in inputs.items()}
    losses = []
    for _ in range(60):
        torch.manual_seed(1)
        loss = module(**frozen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.7
    assert losses[-1] < 0.3
