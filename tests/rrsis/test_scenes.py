"""Large scenes: windows, seams, resumption, memory, and the command line around them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from red_detector import RedDetector

for package in ("rasterio", "pyproj", "shapely", "pyogrio"):
    pytest.importorskip(package, reason="the extra [geo] is not installed")

import pyogrio
import rasterio
from scene_files import TRANSFORM, noise, write_scene

from rrsis import predict as cli
from rrsis.evaluate import load_run
from rrsis.geo_io import NO_DATA
from rrsis.predict import predict
from rrsis.scenes import SceneOptions, SceneSegmenter
from rrsis.tiling import Box, WindowGrid
from rrsis.window_logits import Blend, WindowLogits

NAMES = ("mask.tif", "overlay.png", "polygons.geojson", "summary.json")


class RedWindows(RedDetector):
    """`RedDetector` behind the interface that scenes use; it keeps count of the windows that it saw.

    With `full` it works at the input's own resolution, so that masks of 64-pixel windows are exact.
    """

    def __init__(self, full):
        super().__init__()
        self.seen, self.full = 0, full
        self.encoder = SimpleNamespace(
            words=lambda input_ids, mask: torch.zeros(*input_ids.shape, 1),
            before_words=lambda pixel_values: [pixel_values],
            join=lambda unfused, tokens, mask: unfused[0],
        )

    def decode(self, pixel_values, encoded, token_mask):
        self.seen += len(encoded)
        if self.full:
            return SimpleNamespace(logits=self.gain * (encoded[:, 0] * 0.229 + 0.485 - 0.5)), None
        return self(encoded, token_mask, token_mask), None


def red_segmenter(processor, full=True, **options):
    options = {"expressions": ("the red square",), "window": 64, "overlap": 16, "batch_size": 4, **options}
    return SceneSegmenter(RedWindows(full), processor, SceneOptions(**options), "red")


def read_mask(folder, name="mask.tif"):
    with rasterio.open(folder / name) as file:
        return file.read(1)


def red_scene(path, height=200, width=260, **options):
    """A black scene with red rectangles, one across the windows' seams; and their mask."""
    truth = np.zeros((height, width), dtype=bool)
    truth[20:80, 30:150] = True
    truth[150:170, 200:240] = True
    values = np.zeros((3, height, width), dtype=np.uint8)
    values[0] = truth * 255
    values[2] = 1  # nothing is no-data by accident
    return write_scene(path, values, **options), truth


def test_mask_has_the_scenes_grid_and_the_objects(small_processor, tmp_path):
    path, truth = red_scene(tmp_path / "a.tif")
    result = red_segmenter(small_processor)(path, tmp_path / "out", progress=False)
    with rasterio.open(tmp_path / "out" / "mask.tif") as mask:
        assert mask.crs.to_epsg() == 32633
        assert tuple(mask.transform)[:6] == TRANSFORM
        assert mask.profile["tiled"]
        assert mask.compression.name == "deflate"
        assert mask.nodata == NO_DATA
        assert np.array_equal(mask.read(1), truth.astype(np.uint8))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == list(NAMES)
    assert (result.windows, result.computed) == (24, 24)
    (found,) = result.expressions
    assert (found.objects, found.area_px) == (2, truth.sum())
    assert found.score > 0.99
    assert np.asarray(Image.open(found.overlay)).shape == (200, 260, 3)


def test_windows_and_one_pass_agree_where_both_fit(small_processor, tmp_path):
    # The detector looks at 2 × 2 pixels alone, so windows and one pass can differ only by the resizing of its logits,
    # which at a window's edge lacks the neighbour. There the weight is at most 1/32 of its neighbour's.
    values = noise(160, 256)  # windows start at multiples of 48, so that all pool the same pairs
    path = write_scene(tmp_path / "a.tif", values)
    segmenter = red_segmenter(small_processor, full=False)
    result = segmenter(path, tmp_path / "out", progress=False)
    scaled = (values[0] / 255 - 0.485) / 0.229
    logits = segmenter.model(torch.from_numpy(scaled).float()[None, None], [0], [0]).logits.detach()
    whole = small_processor.post_process_probabilities(SimpleNamespace(logits=logits), [(160, 256)])[0].numpy()
    mask = read_mask(tmp_path / "out")
    assert np.array_equal(mask[np.abs(whole - 0.5) > 0.04], (whole > 0.5)[np.abs(whole - 0.5) > 0.04])
    assert np.mean(mask != (whole > 0.5)) < 0.002
    assert result.windows == 15


@pytest.mark.parametrize("size", [(128, 128), (90, 120)])
def test_a_scene_of_one_window_equals_predict(tiny_run, tmp_path, size):
    values = noise(*size)
    path = write_scene(tmp_path / "a.tif", values)
    model, processor = load_run(tiny_run, "cpu")
    (alone,) = predict(model, processor, values.transpose(1, 2, 0), "the red square")
    # The same computation, but for the order in which float32 sums: pixels within 1e-6 of the threshold may differ. An
    # untrained model's probabilities lie close together, so the threshold is put where few of them are.
    thresholds = np.quantile(alone.probability, np.linspace(0.2, 0.8, 61))
    threshold = float(max(thresholds, key=lambda value: np.mean(np.abs(alone.probability - value) > 1e-6)))
    segmenter = SceneSegmenter.from_run(tiny_run, SceneOptions(("the red square",), threshold), "cpu")
    result = segmenter(path, tmp_path / "out", progress=False)
    mask = read_mask(tmp_path / "out")
    clear = np.abs(alone.probability - threshold) > 1e-6
    assert clear.mean() > 0.9
    assert np.array_equal(mask[clear], (alone.probability > threshold)[clear])
    inside = alone.probability[alone.probability > threshold].mean()
    assert result.expressions[0].score == pytest.approx(inside, abs=1 / 65535 + 1e-6)


def test_blend_is_between_its_windows_and_a_lone_window_is_untouched(tiny_run, tmp_path):
    values = noise(128, 224).transpose(1, 2, 0)
    model, processor = load_run(tiny_run, "cpu")
    grid = WindowGrid(128, 224, 128, 32)
    logits = WindowLogits(tmp_path, grid, 1)
    layers = np.full((len(grid), 128, 224), np.nan, dtype=np.float32)
    for index in range(len(grid)):
        place = grid[index].within(Box(0, 0, 128, 224))
        (alone,) = predict(model, processor, np.ascontiguousarray(values[place]), "the red square")
        layers[index][place] = alone.probability
        batch = processor(images=[values[place]], expressions=["the red square"])
        with torch.inference_mode():
            logits.put(index, model(**batch).logits[:, None].numpy())
    blended = Blend(logits, processor, 0)(Box(0, 0, 128, 224))
    assert np.allclose(blended[:, :96], layers[0][:, :96], atol=1e-6)
    assert (blended >= np.nanmin(layers, axis=0) - 1e-6).all()
    assert (blended <= np.nanmax(layers, axis=0) + 1e-6).all()
    # Pieces are what the whole is: tiles have no seams of their own.
    assert np.array_equal(Blend(logits, processor, 0)(Box(30, 90, 50, 60)), blended[30:80, 90:150])


def test_no_data_stays_no_data_and_never_counts(small_processor, tmp_path):
    holes = np.ones((200, 260), dtype=bool)
    holes[40:60, :] = False
    holes[:, 190:] = False
    path, truth = red_scene(tmp_path / "a.tif", mask=holes)
    segmenter = red_segmenter(small_processor)
    (found,) = segmenter(path, tmp_path / "out", progress=False).expressions
    mask = read_mask(tmp_path / "out")
    assert np.array_equal(mask == NO_DATA, ~holes)
    assert np.array_equal(mask == 1, truth & holes)
    assert (found.objects, found.area_px) == (2, (truth & holes).sum())
    empty = write_scene(tmp_path / "b.tif", np.zeros((3, 100, 100), dtype=np.uint8), nodata=0)
    segmenter.model.seen = 0
    (found,) = segmenter(empty, tmp_path / "empty", progress=False).expressions
    assert segmenter.model.seen == 0
    assert (found.objects, found.score) == (0, 0)
    assert (read_mask(tmp_path / "empty") == NO_DATA).all()


def test_a_side_shorter_than_a_window_is_no_obstacle(small_processor, tmp_path):
    values = np.ones((3, 40, 300), dtype=np.uint8)
    values[0, 10:30, 100:220] = 255
    path = write_scene(tmp_path / "a.tif", values)
    red_segmenter(small_processor)(path, tmp_path / "out", progress=False)
    assert np.array_equal(read_mask(tmp_path / "out") == 1, values[0] == 255)


def test_an_interrupted_run_goes_on_and_ends_alike(tiny_run, tmp_path, monkeypatch):
    path = write_scene(tmp_path / "a.tif", noise(150, 260))
    options = SceneOptions(("the red square", "the nothing"), 0.02, window=64, batch_size=4)
    segmenter = SceneSegmenter.from_run(tiny_run, options, "cpu")
    whole = segmenter(path, tmp_path / "whole", progress=False)
    forward, calls = segmenter._forward, []

    def interrupted(images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(images)

    monkeypatch.setattr(segmenter, "_forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segmenter(path, tmp_path / "parts", progress=False)
    assert [file.name.startswith(".work-") for file in (tmp_path / "parts").iterdir()] == [True]
    result = SceneSegmenter.from_run(tiny_run, options, "cpu")(path, tmp_path / "parts", progress=False)
    assert (whole.windows, whole.computed, result.computed) == (18, 18, 18 - 8)
    written = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert sorted(file.name for file in (tmp_path / "parts").iterdir()) == written
    for name in set(written) - {"summary.json"}:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_what_is_done_is_done_again_only_when_something_changed(small_processor, tmp_path):
    path, _ = red_scene(tmp_path / "a.tif")
    out = tmp_path / "out"
    assert red_segmenter(small_processor)(path, out, progress=False).computed == 24
    assert red_segmenter(small_processor)(path, out, progress=False).computed == 0
    assert red_segmenter(small_processor, threshold=0.4)(path, out, progress=False).computed == 24
    (out / "mask.tif").unlink()
    assert red_segmenter(small_processor, threshold=0.4)(path, out, progress=False).computed == 24
    os.utime(path, (1, 1))
    assert red_segmenter(small_processor, threshold=0.4)(path, out, progress=False).computed == 24


def test_words_are_encoded_once_and_the_first_stage_serves_all_expressions(tiny_run, tmp_path):
    options = SceneOptions(("the red square", "the nothing", "square"), window=64, batch_size=4)
    model, processor = load_run(tiny_run, "cpu")
    calls = {"text": 0, "first": 0, "second": 0}
    counted = {
        "text": model.encoder.text,
        "first": model.encoder.image.stages[0],
        "second": model.encoder.image.stages[1],
    }
    for name, module in counted.items():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    segmenter = SceneSegmenter(model, processor, options, "tiny")
    for name in ("a", "b"):
        segmenter(write_scene(tmp_path / f"{name}.tif", noise(100, 200)), tmp_path / name, progress=False)
    batches = 2 * 2  # two scenes of 8 windows
    assert calls == {"text": 3, "first": batches, "second": 3 * batches}


@pytest.mark.parametrize(
    ("crs", "transform", "note", "square_metres"),
    [
        ("EPSG:32633", TRANSFORM, None, 4.0032),  # UTM's scale at its middle, 0.9996², makes 2 m on the map a bit more
        ("EPSG:4326", (2e-5, 0, 15, 0, -2e-5, 45), None, 2.2225 * 1.5769),  # metres of 2e-5° at 45° north
        ("EPSG:2263", (6.5616798, 0, 981_000, 0, -6.5616798, 200_000), None, 4.0),  # feet
        ("EPSG:32633", (1.6, 1.2, 500_000, 1.2, -1.6, 5_000_000), "rotated", 4.0032),
        (None, TRANSFORM, "no CRS: polygons have the file's own", None),
        (None, None, "no CRS: polygons have pixels coordinates", None),
    ],
)
def test_areas_on_the_ground(small_processor, tmp_path, crs, transform, note, square_metres):
    path, truth = red_scene(tmp_path / "a.tif", crs=crs, transform=transform)
    result = red_segmenter(small_processor)(path, tmp_path / "out", progress=False)
    assert [note in said for said in result.notes] == ([True] if note else [])
    features = json.loads((tmp_path / "out" / "polygons.geojson").read_text())["features"]
    assert [feature["properties"]["area_px"] for feature in features] == [60 * 120, 20 * 40]
    assert all(feature["properties"]["score"] > 0.99 for feature in features)
    if square_metres is None:
        assert all(feature["properties"]["area_m2"] is None for feature in features)
        assert result.expressions[0].area_m2 is None
    else:
        for feature in features:
            assert feature["properties"]["area_m2"] == pytest.approx(
                feature["properties"]["area_px"] * square_metres, rel=1e-3
            )
    corner = features[0]["geometry"]["coordinates"][0]
    if crs is None and transform is None:
        assert sorted(map(tuple, corner[:-1])) == [(30, 20), (30, 80), (150, 20), (150, 80)]
    if crs == "EPSG:4326":
        assert min(point[0] for point in corner) == pytest.approx(15 + 30 * 2e-5)
        assert max(point[1] for point in corner) == pytest.approx(45 - 20 * 2e-5)


def test_holes_and_small_objects(small_processor, tmp_path):
    values = np.ones((3, 100, 100), dtype=np.uint8)
    values[0, 10:50, 10:50] = 255
    values[0, 20:30, 20:30] = 1
    values[0, 80:82, 80:82] = 255
    path = write_scene(tmp_path / "a.tif", values)
    result = red_segmenter(small_processor, min_pixels=5)(path, tmp_path / "out", progress=False)
    (feature,) = json.loads((tmp_path / "out" / "polygons.geojson").read_text())["features"]
    assert feature["properties"]["area_px"] == 1500 == result.expressions[0].area_px
    assert len(feature["geometry"]["coordinates"]) == 2
    assert read_mask(tmp_path / "out").sum() == 1504  # the mask keeps what is too small for a polygon


MEMORY = r"""
import re, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_scenes import red_segmenter
from rrsis.processing import build_processor, build_tokenizer
processor = build_processor(build_tokenizer(["red"], max_tokens=12), image_size=64, max_tokens=12)
for name in ("small", "large"):
    segmenter = red_segmenter(processor, window=512, overlap=64)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, which importing torch has driven up
    segmenter(Path({folder!r}) / f"{{name}}.tif", Path({folder!r}) / name, progress=False)
    # Not ru_maxrss, in which a child starts with its parent's peak.
    print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from Linux's /proc")
def test_memory_is_bounded_by_the_window(tmp_path):
    # 32 times the pixels: a float32 array of the large scene's size alone would be 192 MiB, its bands 288 MiB. GDAL's
    # cache (64 MiB) is filled by the large scene only.
    for name, side in (("small", 1), ("large", 32)):
        values = np.zeros((3, 1536 * 1, 1024 * side), dtype=np.uint16)
        values[:, 100:900, 100:900] = 4000
        values[1:] += 1
        write_scene(tmp_path / f"{name}.tif", values, tiled=True, compress="deflate")
    code = MEMORY.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small, large = map(int, done.stdout.split())
    assert large - small < 120 * 1024, (small, large)


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "in" / "harbour.tif", noise(150, 200))


def command(tiny_run, *words, expressions=("the red square",)):
    named = [word for expression in expressions for word in ("--expression", expression)]
    return cli.main([*map(str, words), "--model", str(tiny_run), *named, "--device", "cpu", "--threshold", "0.000001"])


def test_command_line_writes_one_folder_a_scene(tiny_run, scene, tmp_path, capsys):
    other = write_scene(tmp_path / "in" / "b.tif", noise(60, 60), crs=None)
    out = tmp_path / "out"
    words = ("the red square", "the nothing")
    assert command(tiny_run, scene, other, "--out", out, "--bands", "3", "2", "1", expressions=words) == 0
    printed = capsys.readouterr()
    assert "harbour.tif: the red square: 1 objects, 120" in printed.out
    assert "b.tif: the nothing: 1 objects, area unknown" in printed.out
    assert "note: " in printed.err
    assert "no CRS" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["b", "harbour"]
    numbered = [f"{name}-{number}{end}" for name, end in (("mask", ".tif"), ("overlay", ".png")) for number in (1, 2)]
    polygons = ["polygons-1.geojson", "polygons-2.geojson", "summary.json"]
    assert sorted(path.name for path in (out / "harbour").iterdir()) == numbered + polygons


def test_command_line_writes_a_geopackage(tiny_run, scene, tmp_path, capsys):
    assert command(tiny_run, scene, "--out", tmp_path, "--polygons", "ships.gpkg") == 0
    assert f"{tmp_path / 'harbour' / 'ships.gpkg'}" in capsys.readouterr().out
    about, _, _, columns = pyogrio.raw.read(tmp_path / "harbour" / "ships.gpkg")
    summary = json.loads((tmp_path / "harbour" / "summary.json").read_text())
    (found,) = summary["expressions"]
    assert about["crs"] == "EPSG:32633"
    assert sum(columns[list(about["fields"]).index("area_px")]) == found["area_px"] == 150 * 200
    assert not (tmp_path / "harbour" / "polygons.geojson").exists()


def test_one_bad_scene_is_reported_and_the_rest_goes_on(tiny_run, scene, tmp_path, capsys):
    damaged = write_scene(tmp_path / "in" / "damaged.tif", noise(300, 300, seed=1), compress="deflate")
    damaged.write_bytes(damaged.read_bytes()[:2000])
    missing = tmp_path / "in" / "missing.tif"
    assert command(tiny_run, missing, damaged, scene, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "error: " in printed.err
    assert "missing.tif: scene: no file" in printed.err
    assert "damaged.tif: scene: " in printed.err
    assert "harbour.tif: the red square: 1 objects" in printed.out
    assert (tmp_path / "out" / "harbour" / "mask.tif").is_file()
    assert not (tmp_path / "out" / "missing").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SCENE", "--image", "a.png"], "image: got it and scenes"),
        ([], "image: got no input"),
        (["SCENE", "--overlay", "a.png"], "overlay: got a.png"),
        (["--image", "a.png", "--window", "64"], "window: got 64, expected it only with scenes"),
        (["SCENE", "--workers", "2"], "workers: got 2, expected it only with --engine ray"),
        (["SCENE", "--window", "0"], "window: got 0"),
        (["SCENE", "--overlap", "100"], "overlap: got 100, expected at most half of window, 64"),
        (["SCENE", "--percentiles", "98", "2"], "percentiles: got 98.0 and 2.0"),
        (["SCENE", "--polygons", "a.shp"], "polygons: got 'a.shp', expected a name that ends in .geojson or .gpkg"),
        (["SCENE", "--polygons", "in/a.gpkg"], "polygons: got 'in/a.gpkg', expected a name without a folder"),
        (["--image", "a.png", "--polygons", "a.gpkg"], "polygons: got a.gpkg, expected it only with scenes"),
        (["SCENE", "SCENE"], "would both write to"),
        (["SCENE", "--out", "SCENE"], "is a file, expected a folder"),
        (["SCENE", "--expression", "?"], "expression: got '?'"),
        (["SCENE", "--model", "does/not/exist"], "model: no folder"),
    ],
)
def test_command_line_says_what_is_wrong_and_writes_nothing(tiny_run, scene, tmp_path, capsys, words, message):
    words = [str(scene) if word == "SCENE" else word for word in words]
    defaults = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    assert cli.main(["--model", str(tiny_run), "--expression", "ship", *defaults, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named_with_the_command_that_brings_them(tiny_run, scene, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rrsis.scene_engines", None)
    assert command(tiny_run, scene) == 2
    assert "pip install 'rrsis[geo]'" in capsys.readouterr().err


def test_ray_does_the_same_and_survives_a_bad_scene(tiny_run, scene, tmp_path, capsys, monkeypatch, one_thread):
    pytest.importorskip("ray.data", reason="the extra [ray] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    missing = tmp_path / "in" / "missing.tif"
    assert command(tiny_run, scene, "--out", tmp_path / "local") == 0
    assert command(tiny_run, scene, missing, "--out", tmp_path / "ray", "--engine", "ray", "--workers", "1") == 1
    printed = capsys.readouterr()
    assert "missing.tif: scene: no file" in printed.err
    for name in ("mask.tif", "polygons.geojson", "overlay.png"):
        ours, theirs = (tmp_path / engine / "harbour" / name for engine in ("local", "ray"))
        assert ours.read_bytes() == theirs.read_bytes(), name


@pytest.fixture(scope="module")
def qgis_python():
    """A Python that has QGIS' modules: the system's, where Debian's python3-qgis is installed."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None or subprocess.run([python, "-c", "import qgis.core"], capture_output=True).returncode:
        pytest.skip("no QGIS for the system's Python (Debian: python3-qgis)")
    return python


@pytest.mark.parametrize("name", ["polygons.geojson", "polygons.gpkg"])
def test_qgis_opens_mask_and_polygons(qgis_python, small_processor, tmp_path, name):
    path, truth = red_scene(tmp_path / "a.tif")
    folder = tmp_path / "out"
    red_segmenter(small_processor, polygons=name)(path, folder, progress=False)
    # Pixels in either object and in none; as coordinates of their middles.
    pixels = [(50, 100), (160, 220), (120, 20)]
    points = [
        (TRANSFORM[2] + (column + 0.5) * TRANSFORM[0], TRANSFORM[5] + (row + 0.5) * TRANSFORM[4])
        for row, column in pixels
    ]
    script = Path(__file__).with_name("open_in_qgis.py")
    words = [qgis_python, script, json.dumps(points), folder / "mask.tif", folder / name]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    mask, polygons = json.loads(done.stdout)
    assert mask == {
        "valid": True,
        "crs": "EPSG:32633",
        "size": [260, 200],
        "extent": [500_000.0, 4_999_600.0, 500_520.0, 5_000_000.0],
        "no_data": NO_DATA,
        "at": [1.0, 1.0, 0.0],
    }
    areas = polygons.pop("areas")
    assert sorted(areas) == pytest.approx([4 * 20 * 40, 4 * 60 * 120], rel=2e-3)  # UTM's scale is 0.9996 there
    assert {"expression", "score", "area_m2"} <= set(polygons.pop("fields"))
    crs = "EPSG:32633" if name.endswith(".gpkg") else "EPSG:4326"
    assert polygons.pop("crs") == crs
    assert polygons == {"valid": True, "geometries_valid": True, "inside": [True, True, False], "above_0.9": 2}
