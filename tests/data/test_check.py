"""python -m rrsis.data.check: clean copies of every layout pass, and each way of damaging them is named and counted."""

import json
import pickle
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from rrsis.data import build_dataset
from rrsis.data.check import check_dataset, main
from rrsis.data.listing import KINDS
from rrsis.data.rle import encode_mask

FOLDERS = {
    "refsegrs": ("images", "masks"),
    "risbench": ("img_rgb", "mask"),
    "rrsisd": ("images/rrsisd/JPEGImages", None),
}
LAYOUTS = list(FOLDERS)
PHRASE_LAYOUTS = ["refsegrs", "risbench"]


class Copy:
    """A copy of a written layout, with ways to damage it."""

    def __init__(self, layout, source, root):
        self.layout, self.root = layout, shutil.copytree(source, root / layout)
        self.phrases = self.root / "output_phrase_train.txt"
        self.instances = self.root / "rrsisd/instances.json"

    def images(self):
        return sorted((self.root / FOLDERS[self.layout][0]).iterdir())

    def masks(self):
        return sorted((self.root / FOLDERS[self.layout][1]).iterdir())

    def lines(self, change, split="train"):
        path = self.root / f"output_phrase_{split}.txt"
        lines = change(path.read_text().splitlines())
        path.write_text("\n".join(lines) + "\n")

    def annotation(self, **fields):
        content = json.loads(self.instances.read_text())
        content["annotations"][0].update(fields)
        self.instances.write_text(json.dumps(content))

    def refs(self, change):
        path = self.root / "rrsisd/refs(unc).p"
        refs = pickle.loads(path.read_bytes())
        path.write_bytes(pickle.dumps(change(refs)))

    def check(self, **options):
        return check_dataset(self.layout, self.root, progress=False, **options)

    def found(self, **options):
        """Counts of the kinds that were found."""
        return {kind: count for kind, count in self.check(**options).counts.items() if count}


@pytest.fixture
def copy(request, written, tmp_path):
    return Copy(request.param, written[request.param], tmp_path)


def each(layouts):
    return pytest.mark.parametrize("copy", layouts, indirect=True)


def first_train_image(copy):
    """The file that the first training expression is about."""
    data = build_dataset(copy.layout, "train", copy.root)
    if copy.layout == "rrsisd":
        return data.annotations.image_path(data.references[0])
    return data.image_path(copy.root, data.phrases[0].key)


@each(LAYOUTS)
def test_a_clean_copy_passes(copy, tmp_path, capsys):
    command = ["--dataset", copy.layout, "--data_root", str(copy.root), "--report", str(tmp_path / "report.json")]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert f"{copy.layout} train: 12 expressions about" in printed.out
    assert printed.out.splitlines()[-1] == "0 findings"
    assert "check: 100%" in printed.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == dict.fromkeys(KINDS, 0)
    assert report["expressions"] == {"train": 12, "val": 8, "test": 8}
    assert report["findings"] == []


@each(LAYOUTS)
def test_missing_image(copy):
    path = first_train_image(copy)
    path.unlink()
    report = copy.check()
    assert report.counts["missing_file"] == 1
    (finding,) = report.findings
    assert (finding.split, finding.where, finding.message) == ("train", str(path), "the image is not there")
    with pytest.raises(FileNotFoundError, match=path.name):
        build_dataset(copy.layout, "train", copy.root)[0]


@each(LAYOUTS)
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_unreadable_image(copy, damage):
    path = first_train_image(copy)
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"no picture", "empty": b""}[damage])
    assert copy.found() == {"unreadable_image": 1}
    with pytest.raises(OSError, match=f"image cannot be read: .*{path.name}"):
        build_dataset(copy.layout, "train", copy.root)[0]


@each(PHRASE_LAYOUTS)
def test_masks_as_files(copy):
    masks = copy.masks()
    masks[0].unlink()
    masks[1].write_bytes(b"no picture")
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(masks[2])
    Image.fromarray(np.full((90, 96), 255, np.uint8)).save(masks[3])
    report = copy.check()
    kinds = ["missing_file", "unreadable_mask", "size_mismatch", "empty_mask"]
    assert copy.found() == dict.fromkeys(kinds, 1)
    by_kind = {finding.kind: finding for finding in report.findings}
    for kind, path in zip(("missing_file", "unreadable_mask", "empty_mask", "size_mismatch"), masks, strict=False):
        assert by_kind[kind].where == str(path)
    assert "mask 90 x 96" in by_kind["size_mismatch"].message
    assert "96 x 96" in by_kind["size_mismatch"].message


@each(["rrsisd"])
@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([{"size": [96, 96], "counts": "09"}], "unreadable_mask"),
        ([], "unreadable_mask"),
        ("text", "unreadable_mask"),
        (None, "unreadable_mask"),
        ([encode_mask(np.zeros((96, 96), bool))], "empty_mask"),
        ([encode_mask(np.ones((95, 96), bool))], "size_mismatch"),
        # A polygon beside the picture covers no pixel of it.
        ([[200, 200, 210, 200, 210, 210]], "empty_mask"),
    ],
)
def test_masks_in_annotations(copy, segmentation, kind):
    copy.annotation(segmentation=segmentation)
    assert copy.found() == {kind: 1}
    assert copy.check().findings[0].where == "annotation 0"


@each(["rrsisd"])
def test_masks_are_read_where_the_image_is_missing(copy):
    copy.annotation(segmentation=[{"size": [96, 96], "counts": "09"}])
    first_train_image(copy).unlink()
    assert copy.found() == {"missing_file": 1, "unreadable_mask": 1}


@each(PHRASE_LAYOUTS)
@pytest.mark.parametrize("words", ["", "  ", " ...", " - !"])
def test_lines_without_words(copy, words):
    copy.lines(lambda lines: [lines[0].split()[0] + words, *lines[1:]])
    assert copy.found() == {"no_words": 1}
    assert copy.check().findings[0].where.endswith("output_phrase_train.txt, line 1")
    with pytest.raises(ValueError, match=r"output_phrase_train\.txt, line 1: nothing is said"):
        build_dataset(copy.layout, "train", copy.root)


@each(["rrsisd"])
def test_sentences_without_words(copy):
    copy.refs(lambda refs: [{**refs[0], "sentences": [{"raw": "?!", "sent": ""}]}, *refs[1:]])
    assert copy.found() == {"no_words": 1}
    with pytest.raises(ValueError, match="reference 0 has a sentence without words"):
        build_dataset("rrsisd", "train", copy.root)


@each(PHRASE_LAYOUTS)
def test_lines_with_a_wrong_key(copy):
    copy.lines(lambda lines: ["../secret the ship", *lines])
    assert copy.found() == {"bad_entry": 1}


@each(["rrsisd"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ann_id": 999}, "has ann_id 999"),
        ({"split": "testA"}, "has split 'testA'"),
        ({"sentences": None}, "an entry is not as due"),
        ({"sentences": []}, "it has no sentences"),
        ({"ref_id": 1}, "1-0 is listed twice"),
    ],
)
def test_references_that_are_not_as_due(copy, fields, message):
    copy.refs(lambda refs: [{**refs[0], **fields}, *refs[1:]])
    report = copy.check()
    assert copy.found() == {"bad_entry": 1}
    assert message in report.findings[0].message


@each(["rrsisd"])
def test_nothing_of_an_unknown_split_is_skipped_in_silence(copy):
    copy.refs(lambda refs: [{**refs[0], "split": "testA"}, *refs[1:]])
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p: reference 0 has split 'testA'"):
        build_dataset("rrsisd", "val", copy.root)


@each(["rrsisd"])
def test_two_entries_with_one_number(copy):
    content = json.loads(copy.instances.read_text())
    content["annotations"].append(content["annotations"][0])  # the same entry twice does no harm
    copy.instances.write_text(json.dumps(content))
    assert copy.found() == {}
    content["annotations"].append({**content["annotations"][1], "id": 0})
    copy.instances.write_text(json.dumps(content))
    assert copy.found() == {"bad_entry": 1}
    with pytest.raises(ValueError, match=r"instances\.json: 'annotations' has two different entries with id 0"):
        build_dataset("rrsisd", "val", copy.root)


@each(["rrsisd"])
@pytest.mark.parametrize("name", ["rrsisd/instances.json", "rrsisd/refs(unc).p"])
@pytest.mark.parametrize(("content", "kind"), [(None, "missing_file"), (b"{", "bad_entry")])
def test_annotation_files(copy, name, content, kind):
    (copy.root / name).unlink()
    if content is not None:
        (copy.root / name).write_bytes(content)
    assert copy.found() == {kind: 1}


@each(PHRASE_LAYOUTS)
def test_phrase_files(copy):
    copy.phrases.unlink()
    (copy.root / "output_phrase_val.txt").write_bytes(b"1 \xff\xfe")
    (copy.root / "output_phrase_test.txt").write_text("\n")
    assert copy.found() == {"missing_file": 1, "bad_entry": 2}
    assert copy.found(splits=["train"]) == {"missing_file": 1}


@each(PHRASE_LAYOUTS)
def test_a_file_named_in_two_splits(copy):
    line = copy.phrases.read_text().splitlines()[0]
    copy.lines(lambda lines: [*lines, line.split()[0] + " something else"], "test")
    report = copy.check()
    assert copy.found() == {"image_in_two_splits": 1}
    assert report.findings[0].split == "train+test"
    assert copy.found(splits=["train", "val"]) == {}


@each(LAYOUTS)
def test_the_same_pixels_under_another_name_in_two_splits(copy):
    test = build_dataset(copy.layout, "test", copy.root)
    other = (
        test.annotations.image_path(test.references[0])
        if copy.layout == "rrsisd"
        else test.image_path(copy.root, test.phrases[0].key)
    )
    shutil.copyfile(first_train_image(copy), other)
    found = copy.found()
    assert found.pop("image_in_two_splits") == 1
    # Train scenes have several expressions about the same pixels; another one may happen to say the same.
    assert set(found) <= {"repeated_expression"}


@each(PHRASE_LAYOUTS)
def test_the_same_line_twice(copy):
    copy.lines(lambda lines: [*lines, lines[0].replace(" the ", " The ")])
    report = copy.check()
    assert copy.found() == {"repeated_expression": 1}
    assert report.findings[0].message.endswith("line 13, with the same mask")


@each(["rrsisd"])
def test_the_same_words_about_two_objects(copy):
    words = [{"raw": "the thing", "sent": "the thing"}]
    # The first four references are about one scene; the first two of them get the same words.
    content = json.loads(copy.instances.read_text())["annotations"]
    first = next(k for k in range(1, 4) if content[k]["segmentation"] != content[0]["segmentation"])
    copy.refs(lambda refs: [{**ref, "sentences": words} if k in (0, first) else ref for k, ref in enumerate(refs)])
    report = copy.check()
    assert copy.found() == {"repeated_expression": 1}
    assert report.findings[0].message.endswith("with different masks")


@each(["refsegrs"])
def test_the_command_counts_prints_and_allows(copy, tmp_path, capsys):
    for path in copy.masks()[:5]:
        Image.fromarray(np.full((90, 96), 255, np.uint8)).save(path)
    command = ["--dataset", "refsegrs", "--data_root", str(copy.root)]
    assert main([*command, "--most", "2", "--report", str(tmp_path / "r.json")]) == 1
    printed = capsys.readouterr().out
    assert "     5  size_mismatch: mask and image differ in size" in printed
    assert "... and 3 more" in printed
    assert printed.splitlines()[-1] == "5 findings"
    assert len(json.loads((tmp_path / "r.json").read_text())["findings"]) == 5
    assert main([*command, "--allow", "size_mismatch"]) == 0
    assert main([*command, "--allow", "empty_mask"]) == 1
    assert main([*command, "--splits", "test"]) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--data_root", "does/not/exist"], "there is no folder does/not/exist"),
        (["--splits", "testing"], "split: got 'testing'"),
        (["--num_workers", "0"], "num_workers: got 0"),
        (["--most", "-1"], "most: got -1"),
    ],
)
def test_bad_arguments(written, tmp_path, capsys, changed, message):
    command = ["--dataset", "risbench", "--data_root", str(written["risbench"]), "--report", str(tmp_path / "r.json")]
    assert main([*command, *changed]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_generated_data_are_not_on_disk(tmp_path):
    with pytest.raises(ValueError, match="dataset: got 'synthetic', due is refsegrs, rrsisd or risbench"):
        check_dataset("synthetic", tmp_path)


def test_an_interruption_does_not_wait_for_all_files(written, monkeypatch):
    opened = []

    def interrupted(path):
        opened.append(path)
        time.sleep(0.2)
        raise KeyboardInterrupt

    monkeypatch.setattr("rrsis.data.check.read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_dataset("risbench", written["risbench"], num_workers=1, progress=False)
    assert len(opened) < 28
