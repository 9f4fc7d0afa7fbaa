import collections

import numpy as np
import pytest

from rrsis.data import ReferringSample, SynthConfig, SynthRRSIS
from rrsis.data.synthetic import dataset as dataset_module
from rrsis.data.synthetic.catalogue import CATEGORIES, UNITS
from rrsis.data.synthetic.scene import SceneObject
from rrsis.data.synthetic.shapes import TEMPLATES
from rrsis.data.writers import RRSISD_CATEGORIES


@pytest.fixture(scope="module")
def dataset():
    return SynthRRSIS("train", 120)


def test_sizes_by_default():
    assert [SynthRRSIS(split).num_scenes for split in ("train", "val", "test")] == [4000, 100, 250]
    assert len(SynthRRSIS("test")) == 1000


def test_samples(dataset):
    for index in (0, 5, 17, -1):
        sample = dataset[index]
        assert isinstance(sample, ReferringSample)
        scene_index, number = dataset.locate(index)
        scene = dataset.scene(scene_index)
        statement = scene.statements[number]
        assert sample.image.shape == (128, 128, 3)
        assert sample.expression == statement.text == dataset.expressions[index]
        assert sample.kind == statement.kind
        assert sample.category == scene.objects[statement.referent].category
        np.testing.assert_array_equal(sample.mask, scene.masks[statement.referent])
        assert sample.area == sample.mask.sum() > 0
    assert dataset[0].image_id == dataset[1].image_id != dataset[4].image_id
    assert len({dataset[index].sample_id for index in range(40)}) == 40


def test_the_same_whatever_was_asked_before(dataset):
    other = SynthRRSIS("train", 5, cache=False)
    for index in (19, 3, 11):
        sample, twin = dataset[index], other[index]
        np.testing.assert_array_equal(sample.image, twin.image)
        np.testing.assert_array_equal(sample.mask, twin.mask)
        assert sample.expression == twin.expression


def test_splits_and_seeds_share_nothing():
    sets = [SynthRRSIS("train", 12), SynthRRSIS("val", 12), SynthRRSIS("test", 12), SynthRRSIS("train", 12, seed=1)]
    images = [data.scene(index).image.tobytes() for data in sets for index in range(12)]
    assert len(set(images)) == 48


def test_expressions_are_known_without_rendering(monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("rendered")

    monkeypatch.setattr(dataset_module, "render", refuse)
    data = SynthRRSIS("val", 10)
    assert len(data.expressions) == len(data) == 40
    with pytest.raises(AssertionError, match="rendered"):
        data[0]


@pytest.mark.parametrize(("cache", "renderings"), [(True, 3), (False, 6)])
def test_scenes_are_rendered_once(monkeypatch, cache, renderings):
    calls = []
    render = dataset_module.render
    monkeypatch.setattr(dataset_module, "render", lambda *arguments: calls.append(1) or render(*arguments))
    data = SynthRRSIS("val", 3, cache=cache)
    for _ in range(2):
        for index in range(len(data)):
            data[index]
    assert len(calls) == renderings


def test_every_object_is_seen_where_it_stands(dataset):
    for index in range(120):
        scene = dataset.scene(index)
        assert scene.label_map.max() == len(scene.objects)
        assert scene.masks.shape == (len(scene.objects), 128, 128)
        for item, mask in zip(scene.objects, scene.masks, strict=True):
            # Drawn on pixels, a silhouette is wider by a fraction of a pixel all round: thin ones gain most.
            assert 0.85 * item.area - 4 <= mask.sum() <= 1.45 * item.area + 8, (scene.scene_id, item)
            rows, columns = np.nonzero(mask)
            box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            np.testing.assert_allclose(box, item.box, atol=1.6)
            assert box.min() >= 0
            assert box.max() <= UNITS


def test_objects_keep_apart(dataset):
    for index in range(120):
        boxes = [item.box for item in dataset.plan(index)[0].objects]
        for number, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:number]:
                assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_objects_stand_on_their_ground(dataset):
    for index in range(120):
        layout = dataset.plan(index)[0]
        for item in layout.objects:
            surfaces = CATEGORIES[item.category].surfaces
            if not surfaces:
                assert item.category in {site.category for site in layout.terrain.sites}
                continue
            # The middle lies in a zone that fits and not in the water, unless it is a ship.
            zones = [zone for zone in layout.terrain.zones if zone.holds(*item.position, 0.0, 0.0)]
            assert any(zone.surface in surfaces for zone in zones)
            assert (item.category == "ship") == any(zone.surface == "water" for zone in zones)


def test_categories_and_sizes():
    data = SynthRRSIS("train", 300)
    items = [item for index in range(300) for item in data.plan(index)[0].objects]
    counts = collections.Counter(item.category for item in items)
    assert set(counts) <= set(RRSISD_CATEGORIES)
    assert len(counts) == len(CATEGORIES) >= 10
    assert min(counts.values()) >= 10
    areas = np.array([item.area for item in items])
    assert areas.min() >= 36
    assert np.quantile(areas, 0.1) < 100
    assert areas.max() > 1200
    numbers = [len(data.plan(index)[0].objects) for index in range(300)]
    assert min(numbers) >= 3
    assert max(numbers) == 5
    assert np.mean(numbers) > 4


@pytest.mark.parametrize("category", list(CATEGORIES))
def test_small_and_large_are_apart(category):
    # "Small" and "large" can be told apart by area whatever template and stretch an object has.
    kind = CATEGORIES[category]

    def sizes(large, length, stretch):
        spots = range(len(TEMPLATES[category, large]))
        return [
            SceneObject(category, None, (0, 0, 0), large, variant, (0, 0), length, stretch, 0.0).size
            for variant in spots
        ]

    if category == "bridge":
        return  # Both bridges of a scene have the same length: no expression speaks of it.
    assert min(sizes(True, kind.large[0], 0.93)) > 1.1 * max(sizes(False, kind.small[1], 1.07))


def test_template_boxes_are_centred():
    # Half boxes are measured from the origin: an off-centre template would claim room that it does not need.
    for (category, _), templates in TEMPLATES.items():
        for template in templates:
            points = np.concatenate([np.array(polygon) for polygon in template.silhouette])
            offset = points.max(axis=0) + points.min(axis=0)
            assert np.abs(offset).max() < 0.08, category
            assert np.ptp(points, axis=0).max() == pytest.approx(1.0, abs=0.15), category


def test_colours_show(dataset):
    seen = collections.defaultdict(list)
    for index in range(120):
        scene = dataset.scene(index)
        for item, mask in zip(scene.objects, scene.masks, strict=True):
            if item.category in ("vehicle", "storage tank") and item.colour:
                seen[item.colour].append(np.median(scene.image[mask], axis=0))
    mean = {colour: np.mean(values, axis=0) for colour, values in seen.items()}
    assert set(mean) == {"white", "red", "blue", "yellow", "black", "green"}
    assert mean["red"].argmax() == 0
    assert mean["green"].argmax() == 1
    assert mean["blue"].argmax() == 2
    assert mean["black"].max() < 90
    assert mean["white"].min() > 150
    assert mean["yellow"][:2].min() > 2 * mean["yellow"][2]


@pytest.mark.parametrize("size", [64, 200, 256])
def test_other_image_sizes_show_the_same_scene(size):
    small, other = SynthRRSIS("val", 3), SynthRRSIS("val", 3, config=SynthConfig(image_size=size))
    for index in range(3):
        scene, twin = small.scene(index), other.scene(index)
        assert twin.image.shape == (size, size, 3)
        near = (np.arange(size) * 128) // size
        stretched = scene.label_map[near[:, None], near[None, :]]
        assert (stretched == twin.label_map).mean() > 0.97
        assert abs(twin.image.mean() - scene.image.mean()) < 8


def test_noise_blur_and_texture_do_what_they_say():
    def roughness(**changes):
        image = SynthRRSIS("val", 1, config=SynthConfig.named("default", **changes)).scene(0).image
        return np.abs(np.diff(image.astype(int), axis=1)).mean()

    plain = roughness(noise=0.0, texture=0.0)
    assert roughness(noise=0.0) > plain
    assert roughness(noise=12.0, texture=0.0) > plain + 5
    assert roughness(noise=0.0, texture=0.0, blur=1.5) < plain


def test_smallest_side_is_kept():
    data = SynthRRSIS("val", 20, config=SynthConfig(min_side=9.0))
    for index in range(20):
        for item in data.plan(index)[0].objects:
            half = item.template.half
            assert 2 * min(half[0], half[1] * item.stretch) * item.length >= 9.0 - 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": (5, 3)}, "objects"),
        ({"objects": (0, 3)}, "objects"),
        ({"objects": (2, 40)}, "objects"),
        ({"distractors": (2, 1)}, "distractors"),
        ({"image_size": 8}, "image_size"),
        ({"expressions": 0}, "expressions"),
        ({"kinds": (1.0, 1.0)}, "kinds"),
        ({"kinds": (0.0,) * 6}, "kinds"),
        ({"object_scale": 0.0}, "object_scale"),
        ({"noise": -1.0}, "noise"),
        ({"lookalike": 1.5}, "lookalike"),
    ],
)
def test_configs_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        SynthConfig(**changes)


def test_arguments_that_cannot_be(dataset):
    with pytest.raises(ValueError, match="split: got 'dev'"):
        SynthRRSIS("dev")
    with pytest.raises(ValueError, match="num_scenes: got 0"):
        SynthRRSIS("train", 0)
    with pytest.raises(ValueError, match="seed: got -1"):
        SynthRRSIS("train", 1, seed=-1)
    with pytest.raises(ValueError, match="config: got 'brutal'"):
        SynthRRSIS("train", 1, config="brutal")
    with pytest.raises(IndexError, match="has 480 samples"):
        dataset[480]
    with pytest.raises(IndexError, match="has 120 scenes"):
        dataset.scene(120)
    with pytest.raises(IndexError, match="the scene has"):
        dataset.scene(0).mask(99)


def test_a_config_without_scenes_says_so():
    # Nobody can say 40 different things about two objects.
    data = SynthRRSIS("train", 1, config=SynthConfig(objects=(1, 2), expressions=40))
    with pytest.raises(ValueError, match="no scene with 40 expressions"):
        data[0]


def test_the_data_set_is_pinned():
    # Figures are published on these very scenes: whoever changes them on purpose changes this and measures anew.
    data = SynthRRSIS("train", 2)
    layout, statements = data.plan(0)
    assert [item.category for item in layout.objects] == ["windmill"] + ["storage tank"] * 4
    np.testing.assert_allclose(layout.objects[0].position, (60.31, 36.17), atol=0.01)
    assert [statement.text for statement in statements] == [
        "the large storage tank",
        "the wind turbine",
        "the red tank",
        "the leftmost storage tank",
    ]
    assert data.expressions[4:] == ["the bridge", "the ship next to the bridge", "the vehicle", "the rightmost boat"]
    # Pixels are pinned loosely: Pillow may move an edge.
    scene = data.scene(0)
    assert scene.image.mean() == pytest.approx(117.0, abs=0.5)
    assert (scene.label_map > 0).mean() == pytest.approx(0.0911, abs=0.002)
