"""Predictions as a file: written, read back, scored by the command, and refused where something is wrong."""

import json
import shutil

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from rrsis import evaluate
from rrsis.data import build_dataset, write_layout
from rrsis.data.rle import encode_mask
from rrsis.data.synthetic import SynthConfig, SynthRRSIS
from rrsis.object_size import SIZE_NAMES, size_of
from rrsis.predictions import PredictedMask, read_predictions, write_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small RRSIS-D."""
    splits = {"test": SynthRRSIS("test", 2, seed=5, config=SynthConfig(image_size=64, expressions=3))}
    return write_layout(splits, "rrsisd", tmp_path_factory.mktemp("data") / "rrsisd")


@pytest.fixture(scope="module")
def perfect(folder):
    """Another system's file, made with nothing of rrsis.predictions: every mask is the true one."""
    entries = []
    for sample in build_dataset("rrsisd", "test", folder):
        runs = coco_mask.encode(np.asfortranarray(sample.mask.astype(np.uint8)))
        segmentation = {"size": runs["size"], "counts": runs["counts"].decode()}
        entries.append({"sample_id": sample.sample_id, "segmentation": segmentation})
    return {"format": "rrsis-predictions-1", "predictions": entries}


@pytest.fixture
def score(folder, tmp_path, capsys):
    """Scores a file's content by the command; returns (status, printed errors, metrics.json or None)."""

    def run(content, *more):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "p.json").write_text(text, encoding="utf-8")
        command = ["--predictions", str(tmp_path / "p.json"), "--dataset", "rrsisd", "--data_root", str(folder)]
        status = evaluate.main([*command, *more])
        out = tmp_path / "rescored-rrsisd-test"
        metrics = json.loads((out / "metrics.json").read_text()) if out.exists() else None
        return status, capsys.readouterr(), metrics

    return run


def test_another_systems_file_is_scored(perfect, score, tmp_path):
    status, printed, metrics = score(perfect)
    assert status == 0, printed.err
    assert "rrsisd test: 6 expressions" in printed.out
    for protocol in ("native", "rmsin"):
        figures = metrics["protocols"][protocol]
        assert figures["overall"]["mIoU"] == figures["overall"]["Pr@0.9"] == 1.0
        assert figures["overall"]["intervals"]["num_images"] == 2
        assert sum(entry["num_expressions"] for entry in figures["by_size"].values()) == 6
    assert metrics["predictions"]["masks"] == ["segmentation"]
    assert metrics["calibration"] is None
    names = sorted(path.name for path in (tmp_path / "rescored-rrsisd-test").iterdir())
    assert names == ["metrics.json", "per_expression.jsonl", "worst.png"]


def test_the_commands_own_file_gives_the_same_figures(tiny_run, folder, score, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    command = ["--model", str(run), "--dataset", "rrsisd", "--data_root", str(folder), "--device", "cpu"]
    assert evaluate.main(command) == 0
    written = run / "evaluation-rrsisd-test"
    status, printed, metrics = score((written / "predictions.json").read_text())
    assert status == 0, printed.err
    before = json.loads((written / "metrics.json").read_text())
    assert metrics["protocols"] == before["protocols"]
    lines = (tmp_path / "rescored-rrsisd-test" / "per_expression.jsonl").read_text()
    assert lines == (written / "per_expression.jsonl").read_text()
    assert before["calibration"]["num_pixels"] == 6 * 64 * 64
    assert "calibration of all pixels: ECE" in printed.out
    content = json.loads((written / "predictions.json").read_text())
    assert (content["dataset"], content["split"]) == ("rrsisd", "test")
    first = content["predictions"][0]
    assert set(first) == {"sample_id", "expression", "score", "segmentation", "segmentation_480"}
    assert first["segmentation"]["size"] == [64, 64]


def test_limit_looks_at_the_first_only(perfect, score):
    status, printed, metrics = score(perfect, "--limit", "2")
    assert status == 0, printed.err
    assert metrics["num_expressions"] == 2
    assert "the first 2 are scored" in printed.out
    status, printed, _ = score({**perfect, "predictions": perfect["predictions"][:2]}, "--limit", "2")
    assert status == 0, printed.err


def test_square_masks_alone_are_enough_for_rmsin(perfect, score, folder):
    data = build_dataset("rrsisd", "test", folder)
    square = encode_mask(np.ones((480, 480), bool))
    entries = [{"sample_id": name, "segmentation_480": square} for name in data.sample_ids]
    status, printed, metrics = score({**perfect, "predictions": entries}, "--protocol", "rmsin")
    assert status == 0, printed.err
    assert list(metrics["protocols"]) == ["rmsin"]


def changed(content, number=0, **fields):
    entries = [dict(entry) for entry in content["predictions"]]
    entries[number].update(fields)
    return {**content, "predictions": [{k: v for k, v in entry.items() if v is not None} for entry in entries]}


SQUARE = {"size": [64, 64], "counts": "0"}
FAULTS = {
    "not JSON": (lambda c: "{", "p.json is not JSON"),
    "a list": (lambda c: c["predictions"], "has \"format\" 'list', expected 'rrsis-predictions-1'"),
    "no format": (lambda c: {"predictions": c["predictions"]}, 'has "format" None'),
    "no predictions": (lambda c: {"format": c["format"]}, 'has no list "predictions"'),
    "other data set": (lambda c: {**c, "dataset": "risbench"}, "is about dataset 'risbench', expected 'rrsisd'"),
    "other split": (lambda c: {**c, "split": "val"}, "is about split 'val', expected 'test'"),
    "missing": (lambda c: {**c, "predictions": c["predictions"][1:]}, "1 sample ids without a prediction"),
    "twice": (lambda c: {**c, "predictions": c["predictions"] + c["predictions"][:1]}, "twice, expected once"),
    "unknown": (lambda c: changed(c, sample_id="x-9"), "1 sample ids which the data set does not have ('x-9')"),
    "no id": (lambda c: changed(c, sample_id=None), "entry 0 (sample_id None): sample_id: got None"),
    "entry is no object": (lambda c: {**c, "predictions": ["a"]}, "entry 0 (sample_id None): got str"),
    "no mask": (lambda c: changed(c, 2, segmentation=None), "entry 2"),
    "wrong size": (
        lambda c: changed(c, segmentation=encode_mask(np.zeros((64, 63), bool))),
        "segmentation has size [64, 63], expected the true mask's [64, 64]",
    ),
    "broken runs": (
        lambda c: changed(c, segmentation=SQUARE),
        "segmentation: run-length mask: its runs cover 0 pixels",
    ),
    "square of another size": (
        lambda c: changed(c, segmentation_480=encode_mask(np.zeros((64, 64), bool))),
        "segmentation_480: got size [64, 64], expected [480, 480]",
    ),
    "square for some": (
        lambda c: changed(c, segmentation_480=encode_mask(np.zeros((480, 480), bool))),
        "for some entries only",
    ),
    "squares alone": (
        lambda c: {
            **c,
            "predictions": [
                {"sample_id": e["sample_id"], "segmentation_480": encode_mask(np.zeros((480, 480), bool))}
                for e in c["predictions"]
            ],
        },
        "has no segmentation, which protocol native needs",
    ),
    "score": (lambda c: changed(c, score="high"), "score: got 'high', expected a finite number"),
    "other expression": (lambda c: changed(c, expression="the moon"), "got expression 'the moon', expected 'the"),
    "expression is no text": (lambda c: changed(c, expression=3), "expression: got 3, expected a string"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_said_and_nothing_is_written(perfect, score, tmp_path, fault):
    damage, message = FAULTS[fault]
    status, printed, metrics = score(damage(perfect))
    assert (status, metrics) == (2, None)
    assert message in printed.err
    assert printed.err.count("error: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_the_command_needs_a_model_or_a_file(tmp_path, capsys):
    assert evaluate.main([]) == 2
    assert "got neither, expected --model RUN or --predictions FILE" in capsys.readouterr().err
    assert evaluate.main(["--model", "a", "--predictions", "b"]) == 2
    assert "got both" in capsys.readouterr().err
    assert evaluate.main(["--predictions", str(tmp_path / "none.json")]) == 2
    assert "predictions: no file" in capsys.readouterr().err


def test_round_trip(tmp_path):
    mask = np.random.default_rng(0).random((30, 50)) > 0.5
    written = [
        PredictedMask.of_masks("a-0", mask, np.zeros((480, 480), bool), "the “grey” ship", 0.25),
        PredictedMask.of_masks("a-1", ~mask, np.ones((480, 480), bool), "b", 0.0),
    ]
    write_predictions(tmp_path / "p.json", iter(written), "rrsisd", "test")
    file = read_predictions(tmp_path / "p.json")
    assert list(file.predictions.values()) == written
    assert file.masks == {"segmentation", "segmentation_480"}
    np.testing.assert_array_equal(file.predictions["a-1"].own_size_mask(), ~mask)
    assert file.predictions["a-1"].square_mask().all()


def test_sizes_of_objects():
    def share(pixels):
        mask = np.zeros((100, 100), bool)
        mask.flat[:pixels] = True
        return size_of(mask)

    assert [share(pixels) for pixels in (0, 1, 9, 10, 99, 100, 999, 1000, 10000)] == [
        SIZE_NAMES[k] for k in (0, 1, 1, 2, 2, 3, 3, 4, 4)
    ]
