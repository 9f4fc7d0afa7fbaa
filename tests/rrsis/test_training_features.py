"""Gradient checkpointing, averaged weights, learning rates by layer: each on the smallest model."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_runs import STEPS, arguments, losses

from rrsis.averaging import TRAINING_WEIGHTS, WeightAverage
from rrsis.model import BTDNetForReferringSegmentation
from rrsis.parameter_groups import encoder_depths, parameter_groups
from rrsis.train import main

FILES = {"model.safetensors", TRAINING_WEIGHTS, "optimizer.pt"}


def step(model, batch):
    """Loss, gradients and bytes that the forward keeps for the backward."""
    kept, weights = {}, {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize(
    ("backbone", "share"), [("swin_tiny_patch4_window7_224", 0.6), ("convnext_atto", 0.7), ("resnet10t", 0.95)]
)
def test_gradient_checkpointing_keeps_less_and_changes_nothing(micro_config, micro_batch, backbone, share):
    micro_config.backbone = backbone
    # With stochastic depth and dropout, which must fall the same way when a block runs again.
    micro_config.backbone_kwargs = {
        "swin_tiny_patch4_window7_224": {**micro_config.backbone_kwargs, "depths": [2, 1, 1, 1], "drop_path_rate": 0.5},
        "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "drop_path_rate": 0.5},
        "resnet10t": {"channels": [8, 8, 16, 16]},
    }[backbone]
    micro_config.text_config.hidden_dropout_prob = 0.3
    torch.manual_seed(0)
    plain = BTDNetForReferringSegmentation(micro_config).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    loss, gradients, kept = step(plain, micro_batch)
    same_loss, same_gradients, fewer = step(checkpointed, micro_batch)
    assert torch.equal(same_loss, loss)
    assert fewer < share * kept
    for name, gradient in gradients.items():
        torch.testing.assert_close(same_gradients[name], gradient, msg=name)


def test_no_weight_is_left_without_a_gradient(micro_config, micro_batch):
    """Else several processes would have to look for such weights at every step."""
    _, gradients, _ = step(BTDNetForReferringSegmentation(micro_config).train(), micro_batch)
    assert [name for name, gradient in gradients.items() if gradient is None] == []


def test_the_average_follows_its_formula_and_gives_the_weights_back():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = WeightAverage(model, decay=0.15)
    expected = 0.0
    for index, value in enumerate((1.0, 3.0, -2.0)):
        nn.init.constant_(model.weight, value)
        average.on_step_end()
        decay = min(0.15, (1 + index) / (10 + index))
        expected = decay * expected + (1 - decay) * value
    with average.in_place():
        torch.testing.assert_close(model.weight.item(), expected)
    assert model.weight.item() == -2.0


@pytest.fixture(scope="module")
def averaged_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averaged") / "run"
    main(arguments(folder, ema_decay=0.9))
    return folder


def test_averaged_weights_are_evaluated_and_saved_and_training_does_not_feel_them(averaged_run, tmp_path):
    main(arguments(tmp_path / "plain"))
    assert losses(averaged_run) == losses(tmp_path / "plain")
    last = averaged_run / f"checkpoint-{STEPS}"
    assert {path.name for path in last.iterdir()} >= FILES
    trained, averaged = load_file(last / TRAINING_WEIGHTS), load_file(last / "model.safetensors")
    plain = load_file(tmp_path / "plain" / last.name / "model.safetensors")
    assert all(torch.equal(trained[name], plain[name]) for name in trained)
    assert not torch.equal(averaged["decoder.queries"], plain["decoder.queries"])
    # What is kept is an average too: that of the best step.
    state = json.loads((last / "trainer_state.json").read_text())
    best = load_file(averaged_run / f"checkpoint-{state['best_global_step']}" / "model.safetensors")
    kept = load_file(averaged_run / "model.safetensors")
    assert all(torch.equal(kept[name], best[name]) for name in best)


def test_averaging_continues_where_it_was(averaged_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(averaged_run, folder)
    shutil.rmtree(folder / f"checkpoint-{STEPS}")
    main(arguments(folder, ema_decay=0.9, resume_from_checkpoint="last"))
    for name in ("model.safetensors", TRAINING_WEIGHTS):
        expected = load_file(averaged_run / f"checkpoint-{STEPS}" / name)
        got = load_file(folder / f"checkpoint-{STEPS}" / name)
        assert all(torch.equal(got[key], expected[key]) for key in expected), name
    with pytest.raises(SystemExit, match="--ema_decay must be as in the run that is continued"):
        main(arguments(folder, resume_from_checkpoint="last"))


def test_learning_rates_fall_from_layer_to_layer(micro_config):
    micro_config.backbone_kwargs["depths"] = [1, 1, 2, 1]
    model = BTDNetForReferringSegmentation(micro_config)
    depths = encoder_depths(model)
    assert depths["encoder.image.stem.proj.weight"] == 5
    assert depths["encoder.image.stages.2.downsample.reduction.weight"] == 2
    assert depths["encoder.image.stages.2.blocks.0.mlp.fc1.weight"] == 2
    assert depths["encoder.image.stages.2.blocks.1.mlp.fc1.weight"] == 1
    assert depths["encoder.image.stages.3.blocks.0.mlp.fc1.weight"] == 0
    assert depths["encoder.text.embeddings.word_embeddings.weight"] == 1
    assert depths["encoder.text.encoder.layer.0.output.dense.weight"] == 0
    assert {name.split(".")[1] for name in depths} == {"image", "text"}
    encoders = [name for name, _ in model.named_parameters() if name.startswith(("encoder.image", "encoder.text"))]
    assert set(encoders) == depths.keys()
    groups = parameter_groups(
        model, {"decoder.queries"}, learning_rate=1.0, weight_decay=0.1, encoder_factor=0.5, layer_decay=0.9
    )
    assert groups[0]["lr"] == 1.0
    assert [group for group in groups if group["weight_decay"]][0]["params"] == [model.decoder.queries]
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert rates[id(model.encoder.image.stem.proj.weight)] == pytest.approx(0.5 * 0.9**5)
    assert rates[id(model.encoder.fusions[0].pixel_gain)] == 1.0


def test_a_run_with_all_of_them_at_once(tmp_path):
    options = {"gradient_checkpointing": True, "bf16": True, "ema_decay": 0.9}
    main(arguments(tmp_path / "run", encoder_lr_factor=0.1, layer_lr_decay=0.9, weight_decay=0.1, **options))
    assert Path(tmp_path / "run" / "metrics.json").is_file()
    optimizer = torch.load(tmp_path / "run" / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True)
    rates = [group["initial_lr"] for group in optimizer["param_groups"]]
    assert rates[0] == 1e-3
    assert min(rates) == pytest.approx(1e-3 * 0.1 * 0.9**4)
    assert all(value == value for value in losses(tmp_path / "run"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--ema_decay", "1"], "--ema_decay must be at least 0 and below 1; got 1.0"),
        (["--encoder_lr_factor", "0"], "--encoder_lr_factor must be above 0"),
        (["--layer_lr_decay", "1.5"], "--layer_lr_decay must be above 0 and at most 1; got 1.5"),
    ],
)
def test_rates_that_make_no_sense_are_refused(tmp_path, extra, message):
    with pytest.raises(SystemExit, match=message):
        main(["--output_dir", str(tmp_path / "run"), *extra])
    assert not (tmp_path / "run").exists()


def test_profile_prints_every_component_and_leaves_nothing(tmp_path, capsys):
    main(arguments(tmp_path / "run", profile=True, gradient_accumulation_steps=2, batch=2))
    assert not (tmp_path / "run").exists()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = {row[0]: [float(cell) for cell in row[1:]] for row in rows[1:]}
    for name in ("backbone, stage 3", "text encoder", "BSC fusion 0", "pixel decoder", "decoder, layer 2", "D-MOLS"):
        forward, backward, share, *_ = cells[name]
        assert min(forward, backward, share) > 0, name
    assert cells["backbone, stage 0"][-1] > 0
    assert cells["optimizer"][0] > 0
    total = cells["**sum**"]
    assert total[3] == total[4] == pytest.approx(total[5] / 2, abs=0.11)  # AdamW keeps two numbers a weight


@pytest.mark.parametrize("extra", [["--torch_compile", "True"]])
def test_a_compiled_model_has_no_parts_to_profile(tmp_path, extra):
    with pytest.raises(SystemExit, match="--profile needs one process and a model that is not compiled"):
        main(["--output_dir", str(tmp_path / "run"), "--profile", *extra])
