"""Objects of masks: one tracing for scenes and page, and their files in both formats."""

import json
import warnings

import numpy as np
import pytest

for package in ("rasterio", "pyproj", "shapely", "pyogrio"):
    pytest.importorskip(package, reason="the extra [geo] is not installed")

import pyogrio
import rasterio
import shapely
from pyproj import Transformer
from rasterio.features import geometry_mask
from scene_files import TRANSFORM, write_scene

from rrsis import polygon_files
from rrsis.polygon_files import check_suffix, pixel_collection, write_polygons
from rrsis.polygons import PROBABILITY_STEPS, find_objects

FIELDS = ["expression", "score", "area_m2", "area_px"]


def mask_of(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows], dtype=np.uint8)


def objects_of(mask, **options):
    return list(
        find_objects(mask, lambda box: np.full((box.height, box.width), PROBABILITY_STEPS, np.uint16), **options)
    )


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        # (pixels, holes) of each object
        (mask_of("###", "#.#", "###"), [(8, 1)]),  # a hole; all four edges
        (mask_of("#.", ".#"), [(1, 0), (1, 0)]),  # diagonal pixels are two objects
        (mask_of("####", "#.##", "##.#", "####"), [(14, 2)]),  # diagonal holes are two holes
        (mask_of("##.#", "##.#", "...#"), [(3, 0), (4, 0)]),  # parts, in the corners
        (mask_of("#####", "#...#", "#.#.#", "#...#", "#####"), [(1, 0), (16, 1)]),  # an island in a hole
        (mask_of("##", "##"), [(4, 0)]),  # all of it
        (mask_of("..", ".."), []),
    ],
)
def test_objects_are_groups_of_pixels_that_share_edges(mask, expected):
    found = objects_of(mask)
    assert sorted((item.pixels, len(item.polygon.interiors)) for item in found) == expected
    assert all(item.polygon.is_valid and item.polygon.area == item.pixels for item in found)
    assert [item.score for item in found] == [1.0] * len(found)


def random_mask():
    return (np.random.default_rng(5).random((24, 30)) > 0.45).astype(np.uint8)


def inside(polygon, shape):
    return geometry_mask([polygon], shape, rasterio.Affine.identity(), invert=True)


def test_objects_cover_the_mask_once_and_small_ones_are_left_out():
    mask = random_mask()
    found = objects_of(mask)
    assert np.array_equal(sum(inside(item.polygon, mask.shape).astype(int) for item in found), mask)
    assert [item.pixels for item in objects_of(mask, min_pixels=4)] == [n.pixels for n in found if n.pixels >= 4]


@pytest.mark.parametrize("transform", [TRANSFORM, (1.6, 1.2, 500_000.3, 1.2, -1.6, 5_000_000.7), None])
def test_a_mask_in_a_file_is_traced_as_one_in_memory(tmp_path, transform):
    mask = random_mask()
    path = write_scene(tmp_path / "mask.tif", mask[None], transform=transform)
    with rasterio.open(path) as file:
        assert [item.polygon.wkt for item in objects_of(rasterio.band(file, 1))] == [
            item.polygon.wkt for item in objects_of(mask)
        ]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_the_pages_collection_is_the_mask_in_pixels(threshold):
    probability = np.random.default_rng(3).random((7, 9)).repeat(3, 0).repeat(3, 1).astype(np.float32)
    probability[4:16, 4:16], probability[8:11, 8:11] = 0.9, 0.1
    collection = json.loads(json.dumps(pixel_collection(probability, threshold, "ship")))
    assert collection["image_size"] == {"width": 27, "height": 21}
    assert "not georeferenced" in collection["coordinates"]
    covered = np.zeros(probability.shape, dtype=int)
    for feature in collection["features"]:
        polygon, fields = shapely.geometry.shape(feature["geometry"]), feature["properties"]
        pixels = inside(polygon, probability.shape)
        covered += pixels
        assert polygon.exterior.is_ccw
        assert list(fields) == FIELDS
        assert (fields["expression"], fields["area_m2"], fields["area_px"]) == ("ship", None, pixels.sum())
        assert fields["score"] == pytest.approx(probability[pixels].mean(), abs=1e-5)
    assert np.array_equal(covered, (probability > threshold).astype(int))
    assert any(len(feature["geometry"]["coordinates"]) > 1 for feature in collection["features"])


def test_the_pages_collection_of_all_and_of_nothing():
    (feature,) = pixel_collection(np.ones((4, 6), np.float32), 0.5, "all")["features"]
    assert feature["properties"] == {"expression": "all", "score": 1.0, "area_m2": None, "area_px": 24}
    assert set(map(tuple, feature["geometry"]["coordinates"][0])) == {(0, 0), (6, 0), (6, 4), (0, 4)}
    assert pixel_collection(np.zeros((4, 6), np.float32), 0.5, "none")["features"] == []


@pytest.fixture
def written(tmp_path):
    """Writes a mask's polygons as each of the named files."""

    def write(mask, names, crs="EPSG:32633", transform=TRANSFORM):
        write_scene(tmp_path / "mask.tif", mask[None], crs=crs, transform=transform)
        parts = np.random.default_rng(1).integers(0, PROBABILITY_STEPS + 1, mask.shape, dtype=np.uint16)
        write_scene(tmp_path / "probability.tif", parts[None], crs=crs, transform=transform)
        inputs = (tmp_path / "mask.tif", tmp_path / "probability.tif", "the “grey” ship")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="'crs' was not provided")
            return [write_polygons(tmp_path / "out" / name, *inputs) for name in names]

    return write


def read_geopackage(path):
    """Polygons and fields; read without geopandas."""
    about, _, geometry, columns = pyogrio.raw.read(path, layer="objects")
    assert list(about["fields"]) == FIELDS
    return about["crs"], shapely.from_wkb(geometry), dict(zip(FIELDS, columns, strict=True))


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:2263"])
def test_geopackage_and_geojson_say_the_same(written, tmp_path, monkeypatch, crs):
    monkeypatch.setattr(polygon_files, "_BATCH", 7)  # so that several are written
    transform = (2e-5, 0, 15, 0, -2e-5, 45) if crs == "EPSG:4326" else TRANSFORM
    mask = random_mask()
    totals = written(mask, ["a.geojson", "a.gpkg"], crs, transform)
    assert totals[0] == totals[1]
    features = json.loads((tmp_path / "out" / "a.geojson").read_text())["features"]
    own_crs, polygons, columns = read_geopackage(tmp_path / "out" / "a.gpkg")
    assert own_crs == crs
    assert len(features) == len(polygons) == totals[0].objects > 21
    for name, values in columns.items():
        assert values.tolist() == [feature["properties"][name] for feature in features]
    assert pyogrio.read_info(tmp_path / "out" / "a.gpkg")["geometry_type"] == "Polygon"
    to_wgs84 = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    moved = shapely.transform(polygons, to_wgs84.transform, interleaved=False)
    same = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert shapely.equals_exact(shapely.normalize(moved), shapely.normalize(same), 1e-9).all()
    # In the file's own CRS the corners lie on the raster's grid.
    to_pixels = (~rasterio.Affine(*transform)).to_shapely()
    corners = shapely.get_coordinates([shapely.affinity.affine_transform(polygon, to_pixels) for polygon in polygons])
    assert np.allclose(corners, np.rint(corners), atol=1e-5)


def test_a_geopackage_without_crs_and_without_objects(written, tmp_path):
    mask = random_mask()
    (totals,) = written(mask, ["a.gpkg"], crs=None, transform=None)
    crs, polygons, columns = read_geopackage(tmp_path / "out" / "a.gpkg")
    assert (crs, totals.area_m2) == (None, None)
    assert np.isnan(columns["area_m2"]).all()
    assert columns["area_px"].tolist() == shapely.area(polygons).tolist()
    (totals,) = written(np.zeros_like(mask), ["b.GPKG"])
    crs, polygons, _ = read_geopackage(tmp_path / "out" / "b.GPKG")
    assert (crs, len(polygons), totals.objects, totals.area_m2) == ("EPSG:32633", 0, 0, 0.0)


def test_the_same_objects_give_the_same_bytes_and_no_other_file(written, tmp_path):
    written(random_mask(), ["a.gpkg", "b.gpkg"])
    first, second = ((tmp_path / "out" / name).read_bytes() for name in ("a.gpkg", "b.gpkg"))
    assert first == second
    assert b"1970-01-01" in first  # no time of writing
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.gpkg", "b.gpkg"]


def test_a_geopackage_that_fails_leaves_what_was_there(written, tmp_path, monkeypatch):
    written(random_mask(), ["a.gpkg"])
    before = (tmp_path / "out" / "a.gpkg").read_bytes()
    option = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    write, calls = pyogrio.raw.write, []

    def fail(*arguments, **options):
        calls.append(options["append"])
        if len(calls) == 2:
            raise OSError("disk full")
        write(*arguments, **options)

    monkeypatch.setattr(polygon_files, "_BATCH", 7)
    monkeypatch.setattr(pyogrio.raw, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        written(random_mask()[::-1], ["a.gpkg"])
    assert calls == [False, True]
    assert (tmp_path / "out" / "a.gpkg").read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.gpkg"]
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") == option


def test_other_endings_are_refused():
    assert check_suffix("a/b.GeoJSON") == ".geojson"
    with pytest.raises(ValueError, match=r"polygons: got 'a.shp', expected a name that ends in .geojson or .gpkg"):
        check_suffix("a.shp")
