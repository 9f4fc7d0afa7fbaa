"""What the writers write, the readers read back."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import rrsis
from rrsis.data import SPLITS, build_dataset, write_layout
from rrsis.data.safe_pickle import load_plain_pickle
from rrsis.data.synthetic.__main__ import main
from rrsis.data.writers import LAYOUTS


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("split", SPLITS)
def test_round_trip(sources, written, layout, split):
    source, data = sources[split], build_dataset(layout, split, written[layout])
    assert (data.name, data.split, len(data)) == (layout, split, len(source))
    assert list(data.expressions) == list(source.expressions)
    for index in range(len(source)):
        before, after = source[index], data[index]
        assert after.expression == before.expression
        np.testing.assert_array_equal(after.mask, before.mask)
        if layout == "rrsisd":
            # JPEG is not lossless.
            assert np.abs(after.image.astype(int) - before.image).mean() < 6
            assert after.category == before.category
        else:
            np.testing.assert_array_equal(after.image, before.image)
    names = [data[index].sample_id for index in range(len(data))]
    assert len(set(names)) == len(data)
    assert list(data.sample_ids) == names
    assert list(source.sample_ids) == [source[index].sample_id for index in range(len(source))]
    assert data.describe() == f"{layout} {split}: {len(source)} expressions"
    with pytest.raises(IndexError):
        data[len(data)]


def test_refsegrs_files(written):
    root = written["refsegrs"]
    assert sorted(path.name for path in root.iterdir()) == [
        "images",
        "masks",
        "output_phrase_test.txt",
        "output_phrase_train.txt",
        "output_phrase_val.txt",
    ]
    number, _, text = (root / "output_phrase_train.txt").read_text().splitlines()[0].partition(" ")
    assert number.isdigit()
    assert text.startswith("the ")
    assert set(np.unique(np.asarray(Image.open(root / "masks" / f"{number}.tif")))) == {0, 255}
    # Numbers are unique over all splits, as all splits share the folders.
    assert len(list((root / "images").iterdir())) == 28


def test_rrsisd_files(written, sources):
    root = written["rrsisd"]
    refs = load_plain_pickle(root / "rrsisd" / "refs(unc).p")
    instances = json.loads((root / "rrsisd" / "instances.json").read_text())
    assert len(refs) == 28
    assert {"ref_id", "ann_id", "image_id", "file_name", "split", "category_id", "sentences"} <= set(refs[0])
    assert set(refs[0]["sentences"][0]) == {"sent_id", "raw", "sent", "tokens"}
    assert len(instances["categories"]) == 20
    # One image for all the expressions about it.
    assert len(instances["images"]) == len(list((root / "images/rrsisd/JPEGImages").iterdir())) == 7
    annotation = instances["annotations"][0]
    assert "categories_id" in annotation
    assert isinstance(annotation["segmentation"], list)
    assert set(annotation["segmentation"][0]) == {"size", "counts"}
    rows, columns = np.nonzero(sources["train"][0].mask)
    assert annotation["bbox"] == [columns.min(), rows.min(), columns.max(), rows.max()]


def test_risbench_files(written):
    root = written["risbench"]
    name = (root / "output_phrase_val.txt").read_text().split(" ")[0]
    assert (root / "img_rgb" / name).is_file()
    assert (root / "mask" / name).is_file()


def test_a_folder_in_use_is_left_alone(sources, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_layout(sources, "refsegrs", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(FileExistsError):
        write_layout(sources, "refsegrs", tmp_path / "note.txt")
    with pytest.raises(ValueError, match="layout: got 'coco'"):
        write_layout(sources, "coco", tmp_path / "new")


def test_an_interrupted_write_leaves_nothing(sources, tmp_path):
    class Broken:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index == 1:
                raise KeyboardInterrupt
            return sources["val"][0]

    with pytest.raises(KeyboardInterrupt):
        write_layout({"val": Broken()}, "risbench", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken(sources, tmp_path):
    (tmp_path / "out").mkdir()
    write_layout({"val": sources["val"]}, "risbench", tmp_path / "out")
    assert len(build_dataset("risbench", "val", tmp_path / "out")) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_command(tmp_path, capsys):
    arguments = ["--layout", "refsegrs", "--out", str(tmp_path / "out"), "--size", "64", "--config", "easy"]
    arguments += ["--num_train", "2", "--num_val", "1", "--num_test", "1", "--seed", "9"]
    assert main(arguments) == 0
    assert "train 8, val 4, test 4 expressions" in capsys.readouterr().out
    assert build_dataset("refsegrs", "train", tmp_path / "out")[0].image.shape == (64, 64, 3)
    assert main(arguments) == 1
    assert "error: out:" in capsys.readouterr().err
    assert main([*arguments[:3], str(tmp_path / "new"), "--size", "3"]) == 1
    assert "error: image_size: got 3" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_in_another_process_writes_the_same(tmp_path, written):
    arguments = ["--layout", "risbench", "--out", str(tmp_path / "out"), "--size", "96", "--seed", "5"]
    arguments += ["--num_train", "3", "--num_val", "2", "--num_test", "2"]
    # As `python -m rrsis.data.synthetic`, but without rrsis' own __init__: importing the models takes ten seconds.
    program = "import runpy, sys, types; rrsis = sys.modules['rrsis'] = types.ModuleType('rrsis');"
    program += f"rrsis.__path__ = {list(rrsis.__path__)!r}; sys.argv[0] = 'rrsis.data.synthetic';"
    program += "runpy.run_module('rrsis.data.synthetic', run_name='__main__')"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, env=environment)
    for path in sorted(written["risbench"].rglob("*")):
        if path.is_file():
            twin = tmp_path / "out" / path.relative_to(written["risbench"])
            assert twin.read_bytes() == path.read_bytes(), path.name


def test_the_preview(tmp_path, capsys):
    assert main(["--preview", str(tmp_path / "grid.png"), "--config", "hard"]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (4 * 260, 4 * 292)
        # Every scene has its object outlined.
        pixels = np.asarray(grid)
    outlined = (pixels == (255, 0, 200)).all(axis=2)
    assert all(
        outlined[row * 292 : row * 292 + 256, column * 260 :][:, :256].any() for row in range(4) for column in range(4)
    )
    assert main(["--layout", "refsegrs"]) == 1
    assert "--layout needs --out" in capsys.readouterr().err
