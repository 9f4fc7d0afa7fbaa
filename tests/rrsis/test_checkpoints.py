"""Checkpoints: whole or not at all, looked over before a run continues, and never chosen on test data."""

import json
import shutil

import pytest

from rrsis.checkpoints import MANIFEST, UNFINISHED, clear_before_training, find_checkpoint, find_fault, publish
from rrsis.data import SynthConfig, SynthRRSIS, write_layout
from rrsis.validation import check_apart_from_test


def make_checkpoint(run, step):
    """A small checkpoint, written as the trainer does."""
    unfinished = run / UNFINISHED / f"checkpoint-{step}"
    (unfinished / "shards").mkdir(parents=True)
    (unfinished / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (unfinished / "shards" / "weights.bin").write_bytes(bytes(range(100)))
    publish(unfinished, run / f"checkpoint-{step}")
    return run / f"checkpoint-{step}"


DAMAGE = {
    "weights.bin has 99 bytes of 100": lambda folder: (folder / "shards" / "weights.bin").write_bytes(bytes(99)),
    "weights.bin is not what was written": lambda folder: (folder / "shards" / "weights.bin").write_bytes(bytes(100)),
    "trainer_state.json is missing": lambda folder: (folder / "trainer_state.json").unlink(),
    "manifest.json cannot be read": lambda folder: (folder / MANIFEST).unlink(),
    "manifest.json is damaged": lambda folder: (folder / MANIFEST).write_text("[1]"),
}


@pytest.mark.parametrize("message", list(DAMAGE))
def test_damage_is_found_and_said_and_the_checkpoint_before_is_used(tmp_path, caplog, message):
    older, newest = make_checkpoint(tmp_path, 2), make_checkpoint(tmp_path, 10)
    assert find_checkpoint("last", str(tmp_path)) == str(newest)
    DAMAGE[message](newest)
    assert message in find_fault(newest)
    assert find_checkpoint("last", str(tmp_path)) == str(older)
    assert message in caplog.text
    with pytest.raises(ValueError, match=f"must be a complete checkpoint's folder; got .*{message}"):
        find_checkpoint(str(newest), str(tmp_path))
    clear_before_training(tmp_path, str(older), overwrite=False)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "broken-checkpoint-10"}
    make_checkpoint(tmp_path, 10)
    assert not (tmp_path / "broken-checkpoint-10").exists()


def test_what_was_being_written_is_no_checkpoint(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 2)
    shutil.copytree(checkpoint, tmp_path / UNFINISHED / "checkpoint-4")
    assert find_checkpoint("last", str(tmp_path)) == str(checkpoint)
    assert find_checkpoint(None, str(tmp_path)) is None
    with pytest.raises(ValueError, match="holds no complete checkpoint$"):
        find_checkpoint("last", str(checkpoint))


def test_only_a_run_that_may_overwrite_takes_old_checkpoints_away(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 900)
    (tmp_path / "metrics.json").write_text("{}")
    clear_before_training(tmp_path, None, overwrite=False)
    assert find_fault(checkpoint) is None
    clear_before_training(tmp_path, None, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """RRSIS-D and RISBench, small; `val` of the second one is half of its `test`."""
    root = tmp_path_factory.mktemp("data")
    config = SynthConfig(image_size=64)
    splits = {split: SynthRRSIS(split, 2, seed=5, config=config) for split in ("train", "val", "test")}
    for layout in ("rrsisd", "risbench"):
        write_layout(splits, layout, root / layout)
    test = (root / "risbench" / "output_phrase_test.txt").read_text().splitlines(keepends=True)
    (root / "risbench" / "output_phrase_val.txt").write_text("".join(test[::2]))
    return root


def test_test_data_under_the_name_of_validation_are_refused(root):
    check_apart_from_test("rrsisd", root / "rrsisd", "val")
    check_apart_from_test("risbench", root / "risbench", "train")
    with pytest.raises(ValueError, match="--validation_split val would choose the weights on test data: 4 of its 4"):
        check_apart_from_test("risbench", root / "risbench", "val")
