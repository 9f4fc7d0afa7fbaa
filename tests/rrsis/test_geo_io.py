import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra [geo] is not installed")

from rasterio.enums import ColorInterp
from scene_files import noise, write_scene

from rrsis import geo_io
from rrsis.geo_io import Scene
from rrsis.tiling import Box


def test_windows_of_8_bit_rgb_are_the_file_as_it_is(tmp_path):
    values = noise(60, 90)
    with Scene(write_scene(tmp_path / "a.tif", values)) as scene:
        image, valid = scene.read(Box(10, 20, 30, 40))
        assert np.array_equal(image, values[:, 10:40, 20:60].transpose(1, 2, 0))
        assert valid.all()
        image, valid = scene.read(Box(40, 80, 30, 30))  # beyond the lower right corner
        assert np.array_equal(image[:20, :10], values[:, 40:, 80:].transpose(1, 2, 0))
        assert valid[:20, :10].all()
        assert valid.sum() == 200
        assert image[~valid].max() == 0


@pytest.mark.parametrize(
    ("count", "meanings", "asked", "chosen"),
    [
        (8, None, None, [1, 2, 3]),
        (8, None, (5, 3, 2), [5, 3, 2]),
        (4, ["blue", "green", "red", "undefined"], None, [3, 2, 1]),
        (2, ["gray", "alpha"], None, [1]),
        (2, None, None, [1]),
        (4, None, (4,), [4]),
    ],
)
def test_which_bands_are_read(tmp_path, count, meanings, asked, chosen):
    meanings = None if meanings is None else [ColorInterp[name] for name in meanings]
    values = np.maximum(noise(16, 16, count), 1)
    with Scene(write_scene(tmp_path / "a.tif", values, colorinterp=meanings), asked) as scene:
        assert scene.bands == chosen
        image, _ = scene.read(scene.box)
        expected = values[[band - 1 for band in chosen]].transpose(1, 2, 0)
        assert np.array_equal(image, np.broadcast_to(expected, image.shape))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_deep_bands_are_stretched_alike_in_every_window(tmp_path, dtype):
    ramp = np.linspace(300, 4300, 10_000).reshape(1, 100, 100)
    values = np.concatenate([ramp, ramp + 5000, np.full_like(ramp, 7)]).astype(dtype)
    values[0, 0, 0] = 32_000  # one dead pixel must not darken everything else
    with Scene(write_scene(tmp_path / "a.tif", values)) as scene:
        whole, _ = scene.read(scene.box)
        part, _ = scene.read(Box(50, 50, 50, 50))
    assert whole[0, 0, 0] == 255
    assert whole[0, 1, 0] == 0
    assert whole[-1, -1, 0] == 255
    assert whole[50, 0, 0] == pytest.approx(127.5, abs=2)
    # Each band by its own percentiles; the dead pixel moves the first one's by a hair.
    assert np.abs(whole[1:, :, 0].astype(int) - whole[1:, :, 1]).max() <= 1
    assert (whole[..., 2] == 127).all()  # no contrast at all
    assert np.array_equal(part, whole[50:, 50:])


def test_no_data_is_what_all_bands_call_so_and_never_moves_the_stretch(tmp_path):
    values = np.linspace(1000, 2000, 3 * 40 * 50).reshape(3, 40, 50).astype(np.uint16)
    values[:, :10] = 0  # nowhere data
    values[0, 20] = 0  # one band alone: still a colour
    with Scene(write_scene(tmp_path / "a.tif", values, nodata=0)) as scene:
        image, valid = scene.read(scene.box)
        assert not valid[:10].any()
        assert valid[10:].all()
        assert image[:10].max() == 0
        assert scene.limits.min() > 900
    holes = values.astype(np.float32)
    holes[1, 30, 5] = np.nan
    with Scene(write_scene(tmp_path / "b.tif", holes)) as scene:
        valid = scene.read(scene.box)[1]
        assert not valid[30, 5]
        assert valid.sum() == valid.size - 1
    mask = np.ones((40, 50), dtype=bool)
    mask[:, :7] = False
    with Scene(write_scene(tmp_path / "c.tif", noise(40, 50), mask=mask)) as scene:
        assert np.array_equal(scene.read(scene.box)[1], mask)
    nothing = write_scene(tmp_path / "d.tif", np.zeros((1, 8, 8), dtype=np.uint16), nodata=0)
    with Scene(nothing) as scene:
        assert not scene.read(scene.box)[1].any()


def test_alpha_is_no_data(tmp_path):
    values = noise(20, 20, 4)
    values[3] = 255
    values[3, :5] = 0
    meanings = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with Scene(write_scene(tmp_path / "a.tif", values, colorinterp=meanings)) as scene:
        assert np.array_equal(scene.read(scene.box)[1], values[3] > 0)


def test_a_palette_is_resolved(tmp_path):
    import rasterio

    path = tmp_path / "a.tif"
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=2, width=2, dtype="uint8", photometric="palette"
    ) as f:
        f.write(indices, 1)
        f.write_colormap(1, {0: (1, 2, 3), 1: (200, 100, 0), 2: (9, 8, 7)})
    with Scene(path) as scene:
        assert scene.read(scene.box)[0].tolist() == [[[1, 2, 3], [200, 100, 0]], [[9, 8, 7], [200, 100, 0]]]


def test_thumbnails_are_bounded(tmp_path):
    with Scene(write_scene(tmp_path / "a.tif", noise(60, 90))) as scene:
        assert scene.thumbnail(30).shape == (20, 30, 3)
        assert scene.thumbnail(1000).shape == (60, 90, 3)


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"scene: no file .*missing\.tif"):
        Scene(tmp_path / "missing.tif")
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    with pytest.raises(ValueError, match=r"text\.tif' is not a raster"):
        Scene(text)
    whole = write_scene(tmp_path / "a.tif", noise(64, 64), compress="deflate")
    with pytest.raises(ValueError, match=r"bands: got \[4\], expected one or three numbers from 1 to 3"):
        Scene(whole, (4,))
    with pytest.raises(ValueError, match=r"bands: got \[1, 2\]"):
        Scene(whole, (1, 2))
    with pytest.raises(ValueError, match="is complex64, expected real numbers"):
        Scene(write_scene(tmp_path / "c.tif", noise(8, 8).astype(np.complex64)))
    monkeypatch.setattr(geo_io, "LARGEST_BLOCK", 100)
    with pytest.raises(ValueError, match="is stored in blocks of .* rewrite it in tiles"):
        Scene(whole)
