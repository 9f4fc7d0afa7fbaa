"""rrsis.evaluate: both protocols in one pass, the files it leaves, the errors it gives."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from rrsis import evaluate
from rrsis.data.types import ReferringSample
from rrsis.evaluate import evaluate_model, parse_protocols, provenance, source_commit
from rrsis.metrics import ReferringMetrics


class Squares(Dataset):
    """Images with a red square; the truth of the odd ones is shifted, that of the last one is elsewhere."""

    name, split, seed = "squares", "test", 5

    def __init__(self, red_square, count=5, size=(64, 64)):
        self.samples = []
        for index in range(count):
            image, mask = red_square(size)
            if index % 2:
                mask = np.roll(mask, 8, axis=1)
            if index == count - 1:
                mask = np.roll(mask, 32, axis=1)
            category, kind = ("ship", "colour") if index < 2 else ("bridge", None)
            sample = ReferringSample(image, "the red square", mask, f"s{index}", f"i{index}", category, kind)
            self.samples.append(sample)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    @property
    def expressions(self):
        return [sample.expression for sample in self.samples]


@pytest.fixture
def squares(red_square):
    return Squares(red_square)


def test_known_masks_give_known_figures(red_detector, small_processor, squares):
    result = evaluate_model(red_detector, small_processor, squares, batch_size=2, progress=False)
    # A shift by half the side leaves half: IoU 1/3.
    assert [scored.scores["native"]["iou"] for scored in result.expressions] == pytest.approx([1, 1 / 3, 1, 1 / 3, 0])
    for protocol in ("native", "rmsin"):
        figures = result.overall(protocol)
        assert figures["protocol"] == protocol
        assert figures["num_expressions"] == 5
        assert figures["Pr@0.9"] == pytest.approx(0.4)
        assert figures["mIoU"] == pytest.approx((1 + 1 + 2 / 3 + 0) / 5, abs=0.02)
    assert result.overall() == result.overall("native")
    assert set(result.metrics["native"].by_category()) == {"ship", "bridge"}
    assert set(result.metrics["native"].by_kind()) == {"colour"}


def test_figures_do_not_depend_on_batch_size_and_workers(red_detector, small_processor, squares):
    one = evaluate_model(red_detector, small_processor, squares, batch_size=1, progress=False)
    four = evaluate_model(red_detector, small_processor, squares, batch_size=4, progress=False)
    loaded = evaluate_model(red_detector, small_processor, squares, batch_size=2, num_workers=2, progress=False)
    assert [vars(scored) for scored in one.expressions] == [vars(scored) for scored in four.expressions]
    assert [vars(scored) for scored in one.expressions] == [vars(scored) for scored in loaded.expressions]


def test_masks_are_scored_at_their_own_size(red_detector, small_processor, red_square):
    squares = Squares(red_square, count=1, size=(200, 90))
    squares.samples[0] = ReferringSample(*_with_mask(squares.samples[0], (48, 16, 112, 64), red_square))
    result = evaluate_model(red_detector, small_processor, squares, progress=False)
    outputs = red_detector(**small_processor([squares[0].image], ["the red square"]))
    expected = ReferringMetrics().update(outputs.logits[0].detach(), squares[0].mask, from_logits=True)
    assert result.overall("native")["mIoU"] == pytest.approx(expected)
    assert expected > 0.85


def _with_mask(sample, box, red_square):
    image, mask = red_square(sample.mask.shape, box)
    return image, sample.expression, mask, sample.sample_id, sample.image_id


def test_mode_is_evaluation_without_gradients_and_given_back(red_detector, small_processor, squares):
    red_detector.train()
    evaluate_model(red_detector, small_processor, squares, progress=False)
    assert red_detector.modes == [(False, False)]
    assert red_detector.training
    red_detector.eval()
    evaluate_model(red_detector, small_processor, squares, progress=False)
    assert not red_detector.training


def test_mode_is_given_back_after_a_failure(red_detector, small_processor, squares):
    red_detector.train()
    red_detector.gain.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        evaluate_model(red_detector, small_processor, squares, progress=False)
    assert red_detector.training


def test_worst_cases_are_the_lowest_in_order(red_detector, small_processor, squares):
    result = evaluate_model(red_detector, small_processor, squares, num_worst=3, progress=False)
    assert [row.note for row in result.worst] == ["IoU 0.00", "IoU 0.33", "IoU 0.33"]
    assert np.array_equal(result.worst[0].truth, squares[4].mask)
    assert np.array_equal(result.worst[1].truth, squares[1].mask)  # of equal ones the first
    assert np.array_equal(result.worst[0].prediction, squares[0].mask)
    assert evaluate_model(red_detector, small_processor, squares, num_worst=0, progress=False).worst == []


def test_worst_cases_have_own_size_under_rmsin_alone(red_detector, small_processor, squares):
    result = evaluate_model(red_detector, small_processor, squares, protocols=["rmsin"], num_worst=1, progress=False)
    assert list(result.metrics) == ["rmsin"]
    assert result.worst[0].prediction.shape == (64, 64)


def test_limit_and_autocast(red_detector, small_processor, squares):
    result = evaluate_model(
        red_detector, small_processor, squares, limit=2, autocast_dtype=torch.bfloat16, progress=False
    )
    assert result.overall()["num_expressions"] == 2
    assert result.overall()["oIoU"] == pytest.approx((256 + 128) / (256 + 384))


def test_saved_files_say_what_they_hold(red_detector, small_processor, squares, tmp_path):
    result = evaluate_model(red_detector, small_processor, squares, progress=False)
    paths = result.save(tmp_path / "out", provenance(seed=5))
    names = ["metrics.json", "per_expression.jsonl", "predictions.json", "reliability.png", "worst.png"]
    assert sorted(path.name for path in paths) == names
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(paths)
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["seed"] == 5
    assert content["dataset"] == "squares"
    assert content["split"] == "test"
    assert content["num_expressions"] == 5
    assert content["versions"]["torch"] == torch.__version__
    assert "commit" in content
    for name, figures in content["protocols"].items():
        assert figures["overall"]["protocol"] == name
        assert all(entry["protocol"] == name for entry in figures["by_category"].values())
    lines = [json.loads(line) for line in (tmp_path / "out" / "per_expression.jsonl").read_text().splitlines()]
    assert [line["sample_id"] for line in lines] == [f"s{index}" for index in range(5)]
    # The single lines give back the overall figure.
    native = [line["scores"]["native"] for line in lines]
    total = sum(score["intersection"] for score in native) / sum(score["union"] for score in native)
    assert total == pytest.approx(content["protocols"]["native"]["overall"]["oIoU"])


def test_table_names_both_protocols(red_detector, small_processor, squares):
    lines = evaluate_model(red_detector, small_processor, squares, progress=False).table().splitlines()[2:]
    assert [line.split()[1] for line in lines if line.startswith("all")] == ["native", "rmsin"]
    assert all("native" in line or "rmsin" in line for line in lines)


def test_bad_arguments_are_refused(red_detector, small_processor, squares):
    for arguments, message in (
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"num_worst": -1}, "num_worst: got -1"),
        ({"num_workers": -1}, "num_workers: got -1"),
        ({"limit": 0}, "limit: got 0"),
        ({"protocols": ["coco"]}, "protocol: got 'coco'"),
        ({"protocols": []}, "protocols: got none"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_model(red_detector, small_processor, squares, progress=False, **arguments)
    squares.samples = []
    with pytest.raises(ValueError, match="dataset: got no expressions"):
        evaluate_model(red_detector, small_processor, squares, progress=False)


def test_protocol_words():
    assert parse_protocols("both") == ("native", "rmsin")
    assert parse_protocols("rmsin") == ("rmsin",)
    with pytest.raises(ValueError, match="native, rmsin or both"):
        parse_protocols("coco")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_is_the_checkouts_own(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    monkeypatch.setattr(evaluate, "__file__", str(tmp_path / "evaluate.py"))
    (tmp_path / "evaluate.py").write_text("a = 1\n")
    (tmp_path / "other.py").write_text("b = 1\n")
    git("add", "other.py")
    git("commit", "-m", "first")
    assert source_commit() is None  # not one of the checkout's own files
    git("add", "evaluate.py")
    git("commit", "-m", "second")
    commit = source_commit()
    assert len(commit) == 40
    (tmp_path / "other.py").write_text("b = 2\n")
    assert source_commit() == commit + "-dirty"


def test_command_line_scores_the_real_model(tiny_run, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "metrics.json").write_text('{"seed": 17, "commit": "abc", "steps": 3, "more": []}')
    status = evaluate.main(
        ["--model", str(run), "--limit", "3", "--batch_size", "2", "--num_worst", "2", "--device", "cpu"]
    )
    scores = run / "evaluation-synthetic-test"
    printed = capsys.readouterr()
    assert status == 0, printed.err
    content = json.loads((scores / "metrics.json").read_text())
    assert content["dataset"] == "synthetic"
    assert content["trained"] == {"seed": 17, "commit": "abc", "steps": 3}
    assert set(content["protocols"]) == {"native", "rmsin"}
    assert content["num_expressions"] == 3
    assert (scores / "worst.png").stat().st_size > 1000
    assert "native" in printed.out
    assert "rmsin" in printed.out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--model", "does/not/exist"], "model: no folder"),
        (["--protocol", "coco"], "protocol: got 'coco'"),
        (["--batch_size", "0"], "batch_size: got 0"),
        (["--dataset", "cityscapes"], "cityscapes"),
        (["--split", "testing"], "testing"),
        (["--device", "abacus"], "device: got 'abacus'"),
    ],
)
def test_command_line_says_what_is_wrong_and_writes_nothing(tiny_run, tmp_path, capsys, changed, message):
    arguments = ["--model", str(tiny_run), "--out", str(tmp_path / "out"), *changed]
    assert evaluate.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folder_without_a_model_is_named(tmp_path, capsys):
    assert evaluate.main(["--model", str(tmp_path)]) == 2
    assert "holds no config.json" in capsys.readouterr().err
