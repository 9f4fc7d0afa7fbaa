"""The losses against their definitions written out."""

import torch
from torch.nn import functional as F
from torch.testing import assert_close

from rrsis.config import make_config
from rrsis.decoder import DecoderOutput
from rrsis.losses import correlation_loss, segmentation_loss


def make_output(layers=2, batch=3, size=8):
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(batch, size, size, generator=generator, dtype=torch.float64) for _ in range(2 * layers)]
    return DecoderOutput(draw[:layers], draw[layers:])


def make_labels(batch=3, size=16):
    labels = torch.zeros(batch, size, size, dtype=torch.float64)
    labels[0, 2:9, 3:12] = 1
    labels[1, 5, 5] = 0.25
    return labels  # the last mask is empty


def written_out(output, labels, config):
    total = 0.0
    for target, background in zip(*output, strict=True):
        up = [
            F.interpolate(z[:, None], size=labels.shape[1:], mode="bilinear", align_corners=False)[:, 0]
            for z in (target, background)
        ]
        z = (up[0] - up[1]) / 2
        for index in range(len(labels)):
            y, p = labels[index], z[index].sigmoid()
            total = total + config.joint_weight * F.binary_cross_entropy_with_logits(z[index], y)
            if config.use_twin_stream:
                total = total + config.target_weight * F.binary_cross_entropy_with_logits(up[0][index], y)
                total = total + config.background_weight * F.binary_cross_entropy_with_logits(up[1][index], 1 - y)
            total = total + config.dice_weight * (1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    return total / (len(output.target_logits) * len(labels))


def test_segmentation_loss_is_what_it_says():
    config = make_config("tiny", joint_weight=1.5, target_weight=0.7, background_weight=0.3, dice_weight=1.1)
    output, labels = make_output(), make_labels()
    assert_close(segmentation_loss(output, labels, config), written_out(output, labels, config))


def test_single_stream_has_no_twin_terms():
    config = make_config("tiny", use_twin_stream=False)
    output, labels = make_output(), make_labels()
    assert_close(segmentation_loss(output, labels, config), written_out(output, labels, config))


def test_a_right_prediction_costs_nothing_and_a_wrong_one_much():
    config = make_config("tiny")
    labels = make_labels()[:1].round()
    logits = F.interpolate(labels[:, None], scale_factor=1)[:, 0] * 40 - 20
    right = segmentation_loss(DecoderOutput([logits], [-logits]), labels, config)
    wrong = segmentation_loss(DecoderOutput([-logits], [logits]), labels, config)
    assert right < 1e-3
    assert wrong > 50


def test_correlation_loss_supervises_every_map_at_its_own_scale():
    labels = make_labels()
    share = F.avg_pool2d(labels[:, None], 4)[:, 0]
    fine, coarse = torch.randn(3, 16, 16, dtype=torch.float64), torch.randn(3, 4, 4, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(fine.float(), labels.float())
    expected = (expected + F.binary_cross_entropy_with_logits(coarse.float(), share.float())) / 2
    assert_close(correlation_loss([fine, coarse], labels), expected)
