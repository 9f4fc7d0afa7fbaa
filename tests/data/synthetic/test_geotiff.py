"""The GeoTIFF of generated scenes side by side."""

import sys

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra [geo] is not installed")

import rasterio

from rrsis.data.synthetic import SynthRRSIS
from rrsis.data.synthetic.__main__ import main
from rrsis.data.synthetic.config import SynthConfig
from rrsis.data.synthetic.geotiff import CRS, write_geotiff

SMALL = SynthConfig(image_size=32)


def test_held_out_scenes_stand_side_by_side(tmp_path):
    counts = write_geotiff(tmp_path / "scene.tif", 80, config=SMALL, progress=False)
    scenes = SynthRRSIS("test", 9, config=SMALL)
    with rasterio.open(tmp_path / "scene.tif") as file:
        values = file.read().transpose(1, 2, 0)
        assert (file.crs.to_string(), file.res) == (CRS, (1.0, 1.0))
        assert [meaning.name for meaning in file.colorinterp] == ["red", "green", "blue"]
        assert file.lnglat() == pytest.approx((3.0, 56.4), abs=0.1)  # sea
    assert values.shape == (80, 80, 3)
    for index in range(9):
        top, left = index // 3 * 32, index % 3 * 32
        part = values[top : top + 32, left : left + 32]
        assert np.array_equal(part, scenes.scene(index).image[: part.shape[0], : part.shape[1]])
    whole = sum(len(scenes.scene(index).objects) for index in (0, 1, 3, 4))
    cut = sum(len(scenes.scene(index).objects) for index in (2, 5, 6, 7, 8))
    assert whole <= sum(counts.values()) < whole + cut


def test_the_command(tmp_path, capsys):
    path = tmp_path / "new" / "scene.tif"
    assert main(["--geotiff", str(path), "--size", "130"]) == 0
    said = capsys.readouterr().out
    assert f"wrote {path}: 130 × 130 pixels of 1 m, EPSG:32631" in said
    assert "it shows " in said
    assert [file.name for file in path.parent.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize("size", ["100", "0", "-5"])
def test_too_small_a_scene_is_refused(tmp_path, capsys, size):
    assert main(["--geotiff", str(tmp_path / "scene.tif"), "--size", size]) == 1
    assert f"size: got {size}, due is at least 128" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rrsis.data.synthetic.geotiff", None)
    assert main(["--geotiff", str(tmp_path / "scene.tif")]) == 1
    assert "pip install 'rrsis[geo]'" in capsys.readouterr().err
