"""The loader against the model: what is counted, what is printed, what is refused."""

import json
import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from rrsis.collate import ReferringCollator
from rrsis.data import SynthRRSIS
from rrsis.data.throughput import build_model, loader_rates, main, text, training_rate, waiting_share


class Slow(Dataset):
    """Takes ten milliseconds a sample."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        time.sleep(0.01)
        return index


def test_loader_rates_count_samples():
    def collate(samples):
        return {"pixel_values": torch.zeros(len(samples))}

    first, second = loader_rates(Slow(), collate, batch_size=5, num_workers=0)
    # A hundred a second where nothing else runs; never more.
    assert 5 < first <= 101
    assert 5 < second <= 101


def test_training_rate_trains():
    data = SynthRRSIS("train", 2)
    model, processor = build_model("tiny", data.expressions)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    rate = training_rate(model, ReferringCollator(processor)([data[0], data[1]]), seconds=0.0)
    assert 0 < rate < 2000
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_the_command_on_files(written, tmp_path, capsys):
    command = ["--dataset", "risbench", "--data_root", str(written["risbench"]), "--batch_size", "4", "--samples", "8"]
    command += ["--num_workers", "0", "1", "--seconds", "0", "--flip", "rewrite", "--device", "cpu"]
    assert main([*command, "--report", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr().out
    assert "risbench train: 12 expressions" in printed
    result = json.loads((tmp_path / "r.json").read_text())
    assert [loader["num_workers"] for loader in result["loaders"]] == [0, 1]
    assert np.isfinite([rate for loader in result["loaders"] for rate in loader["samples_per_second"]]).all()
    assert result["num_samples"] == 8
    assert result["versions"]["torch"] == torch.__version__


def test_how_long_the_model_waits():
    assert waiting_share(0, given=100.0, taken=100.0) == 0.5
    assert waiting_share(0, given=300.0, taken=100.0) == 0.25
    assert waiting_share(2, given=300.0, taken=100.0) == 0.0
    assert waiting_share(2, given=25.0, taken=100.0) == 0.75


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ((300.0, 90.0), "not the bottleneck: with 2 workers the model waits 10.0%"),
        ((3000.0, 90.0), "not the bottleneck: with 0 workers the model waits 3.2%"),
        ((20.0, 30.0), "the bottleneck: with 2 workers the model waits 70.0%"),
    ],
)
def test_the_verdict(rates, verdict):
    loaders = [
        {"num_workers": count, "samples_per_second": [1.0, rate]} for count, rate in zip((0, 2), rates, strict=True)
    ]
    result = {"model_samples_per_second": 100.0, "loaders": loaders, "device": "cpu", "machine": {"threads": 1}}
    assert f"loading is {verdict} of the time" in text({**result, "arguments": {"preset": "tiny"}})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--batch_size", "0"], "batch_size: got 0"),
        (["--samples", "3"], "samples: got 3, due is at least 16"),
        (["--num_workers", "-1"], "num_workers: got -1"),
        (["--split", "testing"], "split: got 'testing'"),
        (["--dataset", "rrsisd"], "root: rrsisd is read from disk"),
        (["--device", "abacus"], "device: got 'abacus'"),
    ],
)
def test_bad_arguments(tmp_path, capsys, changed, message):
    assert main(["--report", str(tmp_path / "r.json"), *changed]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
