import numpy as np
import pytest
from PIL import Image

from rrsis.data.files import fit_mask, read_image, read_mask


def test_masks_of_every_mode(tmp_path):
    truth = np.zeros((6, 9), dtype=bool)
    truth[2:4, 3:8] = True
    grey = Image.fromarray(truth.astype(np.uint8) * 255)
    palette = Image.fromarray(truth.astype(np.uint8))
    palette.putpalette([0, 0, 0, 255, 255, 255])
    for name, image in {"L": grey, "1": grey.convert("1"), "RGB": grey.convert("RGB"), "P": palette}.items():
        path = tmp_path / f"{name}.png"
        image.save(path)
        np.testing.assert_array_equal(read_mask(path, 0), truth, err_msg=name)


def test_masks_of_16_bits(tmp_path):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([[0, 300], [65535, 1]], dtype=np.uint16)).save(path)
    assert read_mask(path, 50).tolist() == [[False, True], [True, False]]


def test_images_become_rgb(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    image = read_image(tmp_path / "grey.tif")
    assert image.shape == (3, 4, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 1], grey)


def test_faulty_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image is missing: .*none\.tif"):
        read_image(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(OSError, match=r"mask cannot be read: .*text\.tif"):
        read_mask(tmp_path / "text.tif", 0)
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(OSError, match=r"image cannot be read: .*half\.png"):
        read_image(tmp_path / "half.png")


def test_masks_stretch_over_the_image():
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 2] = True
    assert fit_mask(mask, 4, 4) is mask
    double = fit_mask(mask, 8, 8)
    assert np.argwhere(double).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    np.testing.assert_array_equal(fit_mask(double, 4, 4), mask)


@pytest.mark.parametrize("shape", [(801, 800), (787, 800), (400, 800), (800, 1)])
def test_stretching_is_pillows_nearest(shape):
    mask = np.random.default_rng(1).random((800, 800)) > 0.5
    expected = Image.fromarray(mask.astype(np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)
    # Pillow rounds in floating point: where a pixel's middle falls on an edge it can take the other side.
    assert (fit_mask(mask, *shape) == np.asarray(expected).astype(bool)).mean() > 0.995
