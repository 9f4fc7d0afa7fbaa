"""The diagnosis of a trained model."""

import json

import pytest
import torch

from rrsis.ablate import main
from rrsis.data import build_dataset
from rrsis.diagnose import PARTS, diagnose, layer_ious, render_diagnoses, silence, trained_difficulty
from rrsis.evaluate import evaluate_model, load_run


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run, "cpu")


@pytest.fixture(scope="module")
def dataset():
    return build_dataset("synthetic", "val", num_scenes=2)


@pytest.fixture
def batch(run, dataset):
    _, processor = run
    return processor([dataset[i].image for i in range(3)], [dataset[i].expression for i in range(3)])


@pytest.mark.parametrize("part", PARTS)
def test_a_silenced_part_is_silent_while_the_block_runs_and_no_longer(run, batch, part):
    model, _ = run
    with torch.no_grad():
        whole = model(**batch).layer_logits
        with silence(model, part):
            silenced = model(**batch).layer_logits
        again = model(**batch).layer_logits
    assert not torch.equal(whole[-1], silenced[-1])
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    if part == "gate":
        assert torch.equal(whole[0], silenced[0]), "the first layer has no gate"


def test_without_paint_back_the_queries_never_reach_the_pixels(run, batch):
    model, _ = run
    states = []
    hook = model.decoder.head.register_forward_pre_hook(lambda _module, inputs: states.append(inputs[0].pixels))
    with torch.no_grad(), silence(model, "paint-back"):
        model(**batch)
        before = states[-1]
        model.decoder.queries.data += 1
        model(**batch)
        model.decoder.queries.data -= 1
    hook.remove()
    torch.testing.assert_close(states[-1], before, rtol=0, atol=0)


def test_unknown_part_is_refused(run):
    with pytest.raises(ValueError, match="part must be one of .*'nose'"):
        silence(run[0], "nose")


def test_the_last_layer_scores_as_the_evaluation_does(run, dataset):
    model, processor = run
    scores = layer_ious(model, processor, dataset, batch_size=3)
    assert scores.shape == (model.config.decoder_layers, len(dataset))
    result = evaluate_model(model, processor, dataset, protocols=["native"], progress=False)
    assert scores[-1].mean() == pytest.approx(result.overall()["mIoU"])


def test_diagnosis_adds_up(run, dataset):
    diagnosis = diagnose(*run, dataset)
    assert diagnosis["mIoU_after_layer"][-1] == diagnosis["mIoU"]
    assert set(diagnosis["cost"]) == set(PARTS)
    text = render_diagnoses([diagnosis])
    assert all(part in text for part in PARTS)
    assert "±" not in text


def test_several_diagnoses_become_mean_and_deviation(run, dataset):
    diagnosis = diagnose(*run, dataset)
    costlier = {part: cost + 0.02 for part, cost in diagnosis["cost"].items()}
    text = render_diagnoses([diagnosis, {**diagnosis, "cost": costlier, "broken": 77}])
    assert f"without gate             {-100 * diagnosis['cost']['gate'] - 1:+7.2f} ± 1.41" in text
    assert f"broken {diagnosis['broken']}, 77" in text


def test_only_like_is_averaged_with_like(run, dataset, tmp_path):
    diagnosis = diagnose(*run, dataset)
    with pytest.raises(ValueError, match="got models of 3, 2 layers"):
        render_diagnoses([diagnosis, {**diagnosis, "mIoU_after_layer": [0.5, 0.6]}])
    for difficulty in ("default", "hard"):
        (tmp_path / difficulty).mkdir()
        (tmp_path / difficulty / "metrics.json").write_text(json.dumps({"arguments": {"difficulty": difficulty}}))
    with pytest.raises(
        SystemExit, match=r"rrsis.ablate: --diagnose: got .*/hard \(hard\), due are runs of one difficulty"
    ):
        main(["--diagnose", str(tmp_path / "default"), str(tmp_path / "hard")])
    assert not list(tmp_path.glob("*/diagnosis.json"))


def test_a_run_is_diagnosed_on_what_it_was_trained_on(tmp_path):
    assert trained_difficulty(tmp_path) == "default"
    (tmp_path / "metrics.json").write_text(json.dumps({"arguments": {"difficulty": "hard"}}))
    assert trained_difficulty(tmp_path) == "hard"


def test_command_line(tiny_run, capsys, monkeypatch, dataset):
    monkeypatch.setattr("rrsis.ablate.build_dataset", lambda *_args, **_options: dataset)
    main(["--diagnose", str(tiny_run), "--device", "cpu"])
    assert "without twin attention" in capsys.readouterr().out
    facts = json.loads((tiny_run / "diagnosis.json").read_text())
    assert facts["num_expressions"] == len(dataset)
    assert facts["protocol"] == "native"


def test_missing_run_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match="rrsis.ablate: .*no folder"):
        main(["--diagnose", str(tmp_path / "nowhere")])
