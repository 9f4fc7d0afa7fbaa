"""Peculiarities of RefSegRS and RISBench."""

import numpy as np
import pytest
from PIL import Image

from rrsis.data import RefSegRS, RISBench


def make(root, reader, lines, keys=("1", "2"), suffix=".tif", mask_values=(0, 255), mask_size=(8, 8)):
    for folder in (reader.image_folder, reader.mask_folder):
        (root / folder).mkdir()
    mask = np.full(mask_size, mask_values[0], np.uint8)
    mask[2:4, 1:6] = mask_values[1]
    for key in keys:
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(root / reader.image_folder / f"{key}{suffix}")
        Image.fromarray(mask).save(root / reader.mask_folder / f"{key}{suffix}")
    (root / "output_phrase_train.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    return reader(root, "train")


def test_blank_lines_ends_of_lines_and_blanks(tmp_path):
    lines = b"\xef\xbb\xbf1 paved road\r\n\r\n2   vehicle  along the road \n1\tlow vegetation\n  \n\n"
    data = make(tmp_path, RefSegRS, lines)
    assert data.expressions == ["paved road", "vehicle along the road", "low vegetation"]
    assert [data[index].image_id for index in range(3)] == ["1", "2", "1"]
    assert len({data[index].sample_id for index in range(3)}) == 3
    assert data[0].category is None


def test_no_newline_at_the_end_and_odd_letters(tmp_path):
    data = make(tmp_path, RefSegRS, "1 a café’s roof\n2 road")
    assert data.expressions == ["a café’s roof", "road"]


def test_refsegrs_masks(tmp_path):
    data = make(tmp_path, RefSegRS, "1 road\n", mask_values=(20, 255))
    assert data[0].area == 10


def test_risbench_masks_are_what_exceeds_zero(tmp_path):
    data = make(tmp_path, RISBench, "a1.png the plane\n", keys=("a1",), suffix=".png", mask_values=(0, 1))
    assert data[0].area == 10
    assert data[0].expression == "the plane"


def test_masks_of_another_size_are_stretched(tmp_path):
    data = make(tmp_path, RISBench, "a1.png the plane\n", keys=("a1",), suffix=".png", mask_size=(16, 16))
    assert data[0].mask.shape == (8, 8)
    assert data[0].mask.any()


@pytest.mark.parametrize(
    ("reader", "lines", "message"),
    [
        (RefSegRS, "1 road\nroad 2\n", r"output_phrase_train\.txt, line 2: it starts with 'road'"),
        (RefSegRS, "1 road\n\n2\n", "line 3: nothing is said about '2'"),
        (RefSegRS, "²1 road\n", "line 1: it starts with"),
        (RefSegRS, "\n\n", "holds no expressions"),
        (RefSegRS, b"1 \xff\xfe road\n", "is not UTF-8"),
        (RISBench, "../../secret.png the plane\n", "bare name"),
        (RISBench, "a.png\n", "nothing is said about 'a.png'"),
    ],
)
def test_faulty_phrase_files(tmp_path, reader, lines, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, reader, lines, keys=())


def test_missing_files_are_named(tmp_path):
    data = make(tmp_path, RefSegRS, "1 road\n3 road\n")
    with pytest.raises(FileNotFoundError, match=r"image is missing: .*images/3\.tif"):
        data[1]
    (tmp_path / "masks" / "1.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"mask is missing: .*masks/1\.tif"):
        data[0]
    with pytest.raises(FileNotFoundError, match=r"phrase file is missing: .*output_phrase_val\.txt"):
        RefSegRS(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="root: there is no folder"):
        RefSegRS(tmp_path / "gone", "val")
