"""rrsis.predict: images of every kind in, masks of the image's own size out, nothing written on bad input."""

import numpy as np
import pytest
from PIL import Image

from rrsis import predict as cli
from rrsis.predict import load_image, numbered_paths, predict, to_rgb
from rrsis.visualization import PREDICTION_COLOR


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_mask_has_the_images_own_size(red_detector, small_processor, red_square):
    image, mask = red_square((128, 192), (32, 48, 64, 96))
    (prediction,) = predict(red_detector.eval(), small_processor, image, "the red square")
    assert prediction.mask.shape == prediction.probability.shape == (128, 192)
    assert prediction.mask.dtype == np.bool_
    assert (prediction.mask & mask).sum() / (prediction.mask | mask).sum() > 0.85
    assert prediction.area_share == prediction.mask.mean()
    assert prediction.score == pytest.approx(prediction.probability[prediction.mask].mean())
    assert 0.5 < prediction.score <= 1.0


def test_several_expressions_keep_their_order_across_batches(red_detector, small_processor, red_square):
    image, _ = red_square()
    expressions = ["the red square", "the nothing", "the left square"]
    predictions = predict(red_detector, small_processor, image, expressions, batch_size=2)
    assert [prediction.expression for prediction in predictions] == expressions
    assert len(red_detector.modes) == 2


def test_empty_mask_has_score_zero(red_detector, small_processor):
    (prediction,) = predict(red_detector, small_processor, np.zeros((32, 32, 3), dtype=np.uint8), "the red square")
    assert prediction.score == 0.0
    assert prediction.area_share == 0.0


def test_threshold_moves_the_mask(red_detector, small_processor, red_square):
    image, _ = red_square()
    (low,) = predict(red_detector, small_processor, image, "the red square", threshold=0.05)
    (high,) = predict(red_detector, small_processor, image, "the red square", threshold=0.95)
    assert high.mask.sum() < low.mask.sum()
    assert (low.mask | ~high.mask).all()


def test_bad_arguments_are_refused(red_detector, small_processor, red_square):
    image, _ = red_square()
    for arguments, error, message in (
        ((image, ""), ValueError, "expression: got ''"),
        ((image, ["ship", " \n"]), ValueError, "expression: got ' "),
        ((image, "?!"), ValueError, "expected words"),
        ((image, []), ValueError, "expression: got none"),
        ((image / 255, "ship"), TypeError, "image: got dtype float64"),
        ((image[..., 0], "ship"), ValueError, "image: got shape"),
    ):
        with pytest.raises(error, match=message):
            predict(red_detector, small_processor, *arguments)
    with pytest.raises(ValueError, match="threshold: got 1.0"):
        predict(red_detector, small_processor, image, "ship", threshold=1.0)
    with pytest.raises(ValueError, match="batch_size: got 0"):
        predict(red_detector, small_processor, image, "ship", batch_size=0)


def test_transparent_pixels_become_black(tmp_path):
    rgba = np.full((4, 6, 4), 200, dtype=np.uint8)
    rgba[..., 3] = 255
    rgba[:2, :, 3] = 0
    image = load_image(save(tmp_path / "a.png", rgba))
    assert image.shape == (4, 6, 3)
    assert (image[:2] == 0).all()
    assert (image[2:] == 200).all()


def test_grey_is_repeated(tmp_path):
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    image = load_image(save(tmp_path / "a.png", grey))
    assert np.array_equal(image, np.repeat(grey[..., None], 3, axis=2))


def test_palette_and_bilevel_and_cmyk(tmp_path, red_square):
    rgb, mask = red_square()
    path = tmp_path / "a.png"
    Image.fromarray(rgb).quantize(4).save(path)
    assert np.array_equal(load_image(path), rgb)
    Image.fromarray(mask).save(path)
    assert np.array_equal(load_image(path), np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
    path = tmp_path / "a.tif"
    Image.fromarray(rgb).convert("CMYK").save(path)
    assert np.array_equal(load_image(path), rgb)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_single_channel_is_stretched(tmp_path, dtype):
    values = np.linspace(300, 4300, 10_000).reshape(100, 100).astype(dtype)
    values[0, 0] = 65_000  # one dead pixel must not darken everything else
    image = load_image(save(tmp_path / "a.tif", values))
    assert image.dtype == np.uint8
    assert image.shape == (100, 100, 3)
    assert image[0, 0, 0] == 255
    assert image[0, 1, 0] == 0
    assert image[-1, -1, 0] == 255
    assert image[50, 0, 0] == pytest.approx(127.5, abs=2)


def test_deep_images_without_contrast_or_with_holes():
    assert (to_rgb(Image.fromarray(np.full((3, 3), 700, dtype=np.uint16))) == 127).all()
    holes = np.full((3, 3), np.nan, dtype=np.float32)
    assert (to_rgb(Image.fromarray(holes)) == 0).all()
    holes[0] = [1.0, 2.0, np.inf]
    assert to_rgb(Image.fromarray(holes))[..., 0].tolist() == [[0, 255, 255], [0, 0, 0], [0, 0, 0]]


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[:, :5] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to display"
    image = load_image(save(tmp_path / "a.png", pixels, exif=exif))
    assert image.shape == (20, 10, 3)
    assert (image[:5] == 255).all()
    assert (image[5:] == 0).all()


def test_unreadable_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no file .*missing\.png"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(FileNotFoundError, match="no file"):
        load_image(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png.* is not a readable image"):
        load_image(text)
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ValueError, match="is not a readable image"):
        load_image(cut)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="too large"):
        load_image(whole)


def test_output_names_are_numbered_when_there_are_several(tmp_path):
    assert numbered_paths("a/mask.png", 1) == [cli.Path("a/mask.png")]
    assert [path.name for path in numbered_paths("a/mask.png", 2)] == ["mask-1.png", "mask-2.png"]


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 200, (90, 120, 3), dtype=np.uint8)
    return save(tmp_path / "picture.png", pixels)


def test_command_line_writes_mask_and_overlay_of_the_real_model(tiny_run, picture, tmp_path, capsys):
    out, drawn = tmp_path / "new" / "mask.png", tmp_path / "new" / "overlay.png"
    arguments = ["--model", str(tiny_run), "--image", str(picture), "--device", "cpu", "--threshold", "0.000001"]
    status = cli.main([*arguments, "--expression", "the red square", "--out", str(out), "--overlay", str(drawn)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    mask = Image.open(out)
    assert mask.mode == "L"
    assert mask.size == (120, 90)
    # With this threshold every pixel belongs to the object: all 255, a frame in the overlay's colour, full area.
    assert np.unique(np.asarray(mask)).tolist() == [255]
    assert np.asarray(Image.open(drawn))[0, 0].tolist() == list(PREDICTION_COLOR)
    assert "the red square: 100.00% of the image, score 0." in printed.out
    assert sorted(path.name for path in out.parent.iterdir()) == ["mask.png", "overlay.png"]


def test_command_line_takes_several_expressions(tiny_run, picture, tmp_path, capsys):
    arguments = ["--model", str(tiny_run), "--image", str(picture), "--out", str(tmp_path / "out" / "m.png")]
    assert cli.main([*arguments, "--expression", "the red square", "--expression", "the nothing"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["m-1.png", "m-2.png"]
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out" / "m-1.png")))) <= {0, 255}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--model": "does/not/exist"}, "model: no folder"),
        ({"--image": "missing.png"}, "no file 'missing.png'"),
        ({"--expression": " "}, "expression: got ' '"),
        ({"--out": "mask.jpg"}, "ends in .png"),
        ({"--overlay": "same"}, "would overwrite"),
        ({"--out": "image"}, "would overwrite"),
        ({"--threshold": "2"}, "threshold: got 2.0"),
        ({"--device": "abacus"}, "device: got 'abacus'"),
    ],
)
def test_command_line_says_what_is_wrong_and_writes_nothing(tiny_run, picture, tmp_path, capsys, changed, message):
    out = tmp_path / "out" / "mask.png"
    before = picture.read_bytes()
    options = {"--model": str(tiny_run), "--image": str(picture), "--expression": "ship", "--out": str(out)}
    words = {"same": str(out), "image": str(picture)}
    options |= {name: words.get(value, value) for name, value in changed.items()}
    assert cli.main([word for option in options.items() for word in option]) == 2
    assert message in capsys.readouterr().err
    assert not out.parent.exists()
    assert picture.read_bytes() == before
