"""Flipped samples: the expression still refers to the flipped object, and to no other."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from rrsis.data import SynthConfig, SynthRRSIS
from rrsis.data.augment import EpochCallback, FlippedDataset, Move
from rrsis.data.synthetic.oracle import facts_from_pixels, resolve
from rrsis.data.types import ReferringDataset, ReferringSample

MOVES = [Move(t, h, v) for t in (False, True) for h in (False, True) for v in (False, True)]


class Spoken(ReferringDataset):
    """Given expressions about one picture that is not square."""

    name, split = "spoken", "train"
    expressions = sample_ids = ()

    def __init__(self, expressions):
        self.expressions = expressions
        self.sample_ids = [f"s{k}" for k in range(len(expressions))]

    def __len__(self):
        return len(self.expressions)

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        return ReferringSample(image, self.expressions[index], image[..., 0] > 128, self.sample_ids[index], "i", "ship")


@pytest.mark.parametrize(
    ("config", "total", "turnable"), [("default", 480, 100), ("hard", 480, 100), ("relations", 240, 50)]
)
def test_the_oracle_finds_the_flipped_object_and_only_that(config, total, turnable):
    data = SynthRRSIS("train", 120, seed=11, config=SynthConfig.named(config, image_size=64))
    flipped = FlippedDataset(data, quarter_turns=True)
    counts = dict.fromkeys(MOVES, 0)
    for index in range(data.num_scenes):
        scene = data.scene(index)
        for move in MOVES:
            moved = dataclasses.replace(scene, image=move.apply(scene.image), label_map=move.apply(scene.label_map))
            facts = facts_from_pixels(moved)
            for statement in scene.statements:
                said = dict(flipped.moves(statement.text))
                if move in said:
                    assert resolve(said[move], facts) == [statement.referent], (statement.text, move, said[move])
                    counts[move] += 1
    # All that SynthRRSIS says can be rewritten for flips; by a quarter it turns what names no direction.
    assert [counts[move] for move in MOVES[:4]] == [total] * 4
    assert all(turnable < counts[move] < total for move in MOVES[4:])


def test_rewritten_expressions_are_needed():
    """The check above would notice a flip without rewriting."""
    data = SynthRRSIS("train", 60, seed=11, config=SynthConfig.named("hard", image_size=64))
    wrong = 0
    for index in range(data.num_scenes):
        scene, move = data.scene(index), Move(horizontal=True, vertical=True)
        facts = facts_from_pixels(dataclasses.replace(scene, label_map=move.apply(scene.label_map)))
        wrong += sum(resolve(statement.text, facts) != [statement.referent] for statement in scene.statements)
    assert wrong > 50


@pytest.mark.parametrize("move", MOVES)
def test_moves_of_arrays(move):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    moved = move.apply(array)
    assert moved.flags.c_contiguous
    assert not np.shares_memory(moved, array) or move == Move()
    assert moved.shape == ((3, 2, 4) if move.transpose else (2, 3, 4))
    if not move.transpose:
        np.testing.assert_array_equal(move.apply(moved), array)
    assert sum(np.array_equal(moved, other.apply(array)) for other in MOVES) == 1
    # The first row's first pixel lands where the words say.
    corner = np.argwhere(moved[..., 0] == 0)[0]
    assert corner.tolist() == [moved.shape[0] - 1 if move.vertical else 0, moved.shape[1] - 1 if move.horizontal else 0]


def test_image_mask_and_words_move_together():
    data = Spoken(["the ship in the upper left", "the ship", "the second ship", "the bridge over the river"] * 20)
    flipped = FlippedDataset(data, quarter_turns=True, seed=3)
    seen = set()
    for index in range(len(data)):
        before, after = data[index], flipped[index]
        (move,) = [move for move in MOVES if np.array_equal(move.apply(before.image), after.image)]
        np.testing.assert_array_equal(after.mask, move.apply(before.mask))
        assert (move, after.expression) in flipped.moves(before.expression)
        assert (after.sample_id, after.image_id, after.category) == (before.sample_id, "i", "ship")
        seen.add((index % 4, move))
    drawn = [{move for kind, move in seen if kind == k} for k in range(4)]
    assert drawn[0] == set(MOVES[:4])
    assert drawn[1] == set(MOVES)
    assert drawn[2] == {Move()}
    assert drawn[3] == {Move(), Move(horizontal=True)}


def test_off_and_the_lists():
    data = Spoken(["the ship on the left", "the second ship"])
    off = FlippedDataset(data, flip="off", quarter_turns=True)
    assert all(np.array_equal(off[k].image, data[k].image) for k in range(2))
    assert list(off.possible_expressions) == data.expressions
    flipped = FlippedDataset(data)
    assert flipped.expressions == data.expressions
    assert flipped.sample_ids == data.sample_ids
    assert (len(flipped), flipped.name, flipped.split) == (2, "spoken", "train")
    assert set(flipped.possible_expressions) == {"the ship on the left", "the ship on the right", "the second ship"}
    with pytest.raises(IndexError):
        flipped[2]


def pictures(data):
    return [sample.image.tobytes() for sample in data]


def test_draws_depend_on_seed_epoch_and_index_alone():
    data = Spoken(["the ship"] * 12)
    flipped, again, other = FlippedDataset(data, seed=1), FlippedDataset(data, seed=1), FlippedDataset(data, seed=2)
    first = pictures(flipped)
    assert pictures(again) == first != pictures(other)
    flipped.set_epoch(1)
    second = pictures(flipped)
    assert second != first
    flipped.set_epoch(0)
    assert flipped[5].image.tobytes() == first[5]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_see_the_epoch(persistent):
    data = FlippedDataset(Spoken(["the ship"] * 12))
    loader = DataLoader(data, 3, num_workers=2, collate_fn=list, persistent_workers=persistent)
    epochs = []
    for epoch in range(2):
        data.set_epoch(epoch)
        epochs.append([sample.image.tobytes() for batch in loader for sample in batch])
        assert epochs[-1] == pictures(data)
    assert epochs[0] != epochs[1]


def test_the_callback_counts_epochs_of_the_trainer():
    data = FlippedDataset(Spoken(["the ship"] * 12))
    callback = EpochCallback(data)
    for epoch, due in ((None, 0), (0.0, 0), (0.9999999, 1), (1.5, 1), (2, 2)):
        callback.on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
        assert int(data._epoch) == due


def test_bad_arguments():
    with pytest.raises(ValueError, match="flip: got 'on', due is one of off, rewrite"):
        FlippedDataset(Spoken([]), flip="on")
    with pytest.raises(ValueError, match="seed: got -1"):
        FlippedDataset(Spoken([]), seed=-1)


class OneWeight(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, pictures):
        return {"loss": self.weight * pictures.mean()}


def trainer_over(data, folder, seen, **arguments):
    """A Trainer that notes the mean of every picture it is given."""

    def collate(samples):
        seen.extend(float(sample.image[0].mean()) for sample in samples)
        return {"pictures": torch.stack([torch.from_numpy(sample.image).float() for sample in samples])}

    options = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=3,
        per_device_train_batch_size=2,
        save_strategy="steps",
        save_steps=4,
        report_to=[],
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        **arguments,
    )
    return Trainer(OneWeight(), options, collate, data, callbacks=[EpochCallback(data)])


def test_in_the_trainer_epochs_differ_and_a_resumed_run_sees_what_it_would_have_seen(tmp_path):
    whole, rest = [], []
    data = FlippedDataset(Spoken(["the ship"] * 6))
    trainer_over(data, tmp_path, whole).train()
    assert len({frozenset(whole[start : start + 6]) for start in (0, 6, 12)}) == 3
    # Step 4 of 9 lies within the second epoch.
    data = FlippedDataset(Spoken(["the ship"] * 6))
    trainer_over(data, tmp_path, rest).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert rest == whole[8:]
