"""Peculiarities of RRSIS-D."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from rrsis.data import RRSISD
from rrsis.data.rrsisd import decode_segmentation
from rrsis.data.safe_pickle import UnsafePickleError


def part(mask):
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def rectangle(top, left, bottom, right, shape=(80, 80)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


class Folder:
    """A small RRSIS-D that a test can change before it is read."""

    def __init__(self, root, image_size=(80, 80)):
        self.root = root
        self.mask = rectangle(10, 20, 30, 60)
        self.instances = {
            "images": [{"id": 7, "file_name": "00007.jpg", "width": 80, "height": 80}],
            "annotations": [
                {
                    "id": 3,
                    "image_id": 7,
                    "categories_id": 2,
                    "bbox": [20, 10, 59, 29],
                    "segmentation": [part(self.mask)],
                    "area": 800,
                }
            ],
            "categories": [{"id": 1, "name": "airplane"}, {"id": 2, "name": "ship"}],
        }
        sentence = {"sent_id": 0, "raw": "The  grey ship ", "sent": "the grey ship", "tokens": ["the", "grey", "ship"]}
        self.refs = [
            {
                "ref_id": 11,
                "ann_id": 3,
                "image_id": 7,
                "file_name": "00007_3.jpg",
                "split": "train",
                "category_id": 2,
                "sentences": [sentence],
                "sent_ids": [0],
            }
        ]
        (root / "rrsisd").mkdir()
        (root / "images/rrsisd/JPEGImages").mkdir(parents=True)
        image = np.zeros((*image_size, 3), np.uint8)
        Image.fromarray(image).save(root / "images/rrsisd/JPEGImages/00007.jpg")

    def read(self, split="train"):
        (self.root / "rrsisd/instances.json").write_text(json.dumps(self.instances))
        (self.root / "rrsisd/refs(unc).p").write_bytes(pickle.dumps(self.refs))
        return RRSISD(self.root, split)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_one_sample(folder):
    data = folder.read()
    sample = data[0]
    assert data.expressions == ["The grey ship"]
    assert (sample.sample_id, sample.image_id, sample.category) == ("11-0", "00007", "ship")
    np.testing.assert_array_equal(sample.mask, folder.mask)


def test_the_box_is_left_top_right_bottom(folder):
    reference = folder.read().references[0]
    assert reference.box == (20.0, 10.0, 59.0, 29.0)
    rows, columns = np.nonzero(folder.mask)
    assert reference.box == (columns.min(), rows.min(), columns.max(), rows.max())


def test_category_key_of_coco(folder):
    annotation = folder.instances["annotations"][0]
    annotation["category_id"] = annotation.pop("categories_id")
    assert folder.read()[0].category == "ship"
    del annotation["category_id"]
    assert folder.read()[0].category == "ship"  # from the reference
    folder.refs[0]["category_id"] = 99
    assert folder.read()[0].category is None


def test_overlapping_parts_are_united(folder):
    first, second = rectangle(0, 0, 40, 40), rectangle(20, 20, 60, 60)
    folder.instances["annotations"][0]["segmentation"] = [part(first), part(second)]
    np.testing.assert_array_equal(folder.read()[0].mask, first | second)


@pytest.mark.parametrize("height", [78, 81])
def test_image_and_mask_of_different_sizes(tmp_path, height):
    folder = Folder(tmp_path, image_size=(height, 80))
    sample = folder.read()[0]
    assert sample.mask.shape == sample.image.shape[:2] == (height, 80)
    nearest = Image.fromarray(folder.mask.astype(np.uint8)).resize((80, height), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(sample.mask, np.asarray(nearest) > 0)


def test_several_sentences_are_several_samples(folder):
    folder.refs[0]["sentences"].append({"sent_id": 1, "sent": "the ship below", "tokens": []})
    data = folder.read()
    assert data.expressions == ["The grey ship", "the ship below"]
    assert [data[index].sample_id for index in range(2)] == ["11-0", "11-1"]


def test_splits(folder):
    folder.refs.append({**folder.refs[0], "ref_id": 12, "split": "test"})
    assert [len(folder.read(split)) for split in ("train", "test")] == [1, 1]
    with pytest.raises(ValueError, match="no expressions of split 'val'"):
        folder.read("val")


@pytest.mark.parametrize(
    "segmentation",
    [
        lambda mask: part(mask),
        lambda mask: [{"size": [80, 80], "counts": part(mask)["counts"].encode()}],
        lambda mask: [{"size": [80, 80], "counts": [20 * 80 + 10] + [20, 60] * 39 + [20, 50 + 20 * 80]}],
        lambda mask: [[19.5, 9.5, 59.5, 9.5, 59.5, 29.5, 19.5, 29.5]],
    ],
)
def test_forms_of_segmentation(segmentation):
    mask = rectangle(10, 20, 30, 60)
    np.testing.assert_array_equal(decode_segmentation(segmentation(mask), 80, 80), mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "segmentation: got"),
        ("runs", "segmentation: got"),
        (None, "segmentation: got"),
        ([{"size": [80, 80], "counts": "09"}], "cover 9 pixels"),
        ([[1.0, 2.0, 3.0, 4.0]], "3 corners or more"),
        ([[1.0, 2.0, 3.0, 4.0, "x", 6.0]], "no finite number"),
        (["ab"], "3 corners or more"),
        ([{"size": [8, 8]}], "due are size and counts"),
        ([part(rectangle(0, 0, 2, 2)), part(rectangle(0, 0, 2, 2, (60, 60)))], "different sizes"),
    ],
)
def test_faulty_segmentations(folder, segmentation, message):
    folder.instances["annotations"][0]["segmentation"] = segmentation
    data = folder.read()
    with pytest.raises(ValueError, match=rf"instances\.json: annotation 3: .*{message}"):
        data[0]


def test_an_annotation_that_is_not_there(folder):
    folder.refs[0]["ann_id"] = 5
    with pytest.raises(ValueError, match=r"reference 11 has ann_id 5, which is not in rrsisd/instances\.json"):
        folder.read()


def test_entries_that_lack_something(folder):
    del folder.refs[0]["sentences"]
    with pytest.raises(ValueError, match="an entry is not as due: KeyError\\('sentences'\\)"):
        folder.read()
    folder.refs = {"refs": []}
    with pytest.raises(ValueError, match="got a dict, due is a list"):
        folder.read()
    del folder.instances["images"]
    with pytest.raises(ValueError, match="no list 'images'"):
        folder.read()


def test_a_sentence_without_words(folder):
    folder.refs[0]["sentences"][0].update(raw=" ", sent="")
    with pytest.raises(ValueError, match="sentence without words"):
        folder.read()


def test_a_malicious_refs_file_is_refused(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "trace"),)

    folder.refs.append(Evil())
    with pytest.raises(UnsafePickleError, match=r"refs\(unc\)\.p"):
        folder.read()
    assert not (tmp_path / "trace").exists()


def test_missing_and_broken_files_are_named(folder):
    data = folder.read()
    (folder.root / "images/rrsisd/JPEGImages/00007.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"image is missing: .*00007\.jpg"):
        data[0]
    (folder.root / "rrsisd/instances.json").write_text("{")
    with pytest.raises(ValueError, match=r"instances\.json is not JSON"):
        RRSISD(folder.root)
    (folder.root / "rrsisd/instances.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations is missing: .*instances\.json"):
        RRSISD(folder.root)
    (folder.root / "rrsisd/refs(unc).p").unlink()
    with pytest.raises(FileNotFoundError, match=r"references is missing: .*refs\(unc\)\.p"):
        RRSISD(folder.root)
