"""rrsis.explain: the scores word by word are those that BSC used."""

import pytest
import torch

from rrsis.encoders import CORRELATION_HEAD
from rrsis.explain import merge_tokens, word_scores
from rrsis.lavt import LAVTForReferringSegmentation
from rrsis.model import BTDNetForReferringSegmentation


@pytest.mark.parametrize("order", ["absorbed", "projected"])
@pytest.mark.parametrize("pool", [True, False])
def test_logsumexp_over_words_is_the_operators_pixel_lse(micro_config, micro_batch, order, pool):
    micro_config.bsc_order, micro_config.use_bsc_pool = order, pool
    model = BTDNetForReferringSegmentation(micro_config).eval()
    for stage in model.encoder.fusions:  # biases start at zero, where a forgotten one would not show
        torch.nn.init.normal_(stage.correlation.pixel_query.bias)
        torch.nn.init.normal_(stage.correlation.token_key.bias)
    inputs = {name: micro_batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    output, stages = word_scores(model, inputs)
    assert len(stages) == 4
    for stage, fusion, correlation_map in zip(stages, model.encoder.fusions, output.correlation_maps, strict=True):
        torch.testing.assert_close(stage.scores.logsumexp(2), stage.pixel_lse, rtol=1e-4, atol=1e-4)
        rebuilt = fusion.map_scale * stage.scores.logsumexp(2)[:, CORRELATION_HEAD] + fusion.map_bias
        torch.testing.assert_close(rebuilt, correlation_map, rtol=1e-4, atol=1e-4)
        assert (stage.scores[1, :, 4:] == -torch.inf).all()
        assert stage.scores[0].isfinite().all()


def test_looking_changes_nothing_and_leaves_nothing_behind(micro_config, micro_batch):
    model = BTDNetForReferringSegmentation(micro_config).eval()
    inputs = {name: micro_batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    with torch.no_grad():
        plain = model(**inputs)
    output, _ = word_scores(model, inputs)
    assert torch.equal(output.logits, plain.logits)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="input_ids"):
        word_scores(model, {**inputs, "input_ids": inputs["input_ids"][:1]})
    assert not any(module._forward_hooks for module in model.modules())


def test_models_without_bsc_have_no_scores(micro_config, micro_batch):
    inputs = {name: micro_batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    micro_config.architecture = "lavt"
    assert word_scores(LAVTForReferringSegmentation(micro_config).eval(), inputs)[1] == []
    micro_config.architecture, micro_config.use_bsc = "btdnet", False
    assert word_scores(BTDNetForReferringSegmentation(micro_config).eval(), inputs)[1] == []


def test_pieces_of_a_word_share_one_map():
    scores = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    maps = merge_tokens(scores, [None, 0, 1, 1, None])
    assert list(maps) == [0, 1]
    torch.testing.assert_close(maps[0], scores[:, 1].mean(0))
    torch.testing.assert_close(maps[1], torch.logaddexp(scores[:, 2], scores[:, 3]).mean(0))
