"""rrsis.visualization: right colours, whole files, nobody else's Matplotlib state touched."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from rrsis.visualization import (
    FALSE_NEGATIVE_COLOR,
    FALSE_POSITIVE_COLOR,
    TRUE_POSITIVE_COLOR,
    SampleRow,
    overlap_picture,
    overlay,
    save_curves,
    save_image,
    save_sample_grid,
)


@pytest.fixture
def example():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    truth, prediction = np.zeros((40, 50), dtype=bool), np.zeros((40, 50), dtype=bool)
    truth[5:20, 5:30] = True
    prediction[10:25, 10:35] = True
    return image, truth, prediction


def test_overlay_tints_the_mask_and_nothing_else(example):
    image, truth, _ = example
    before = image.copy()
    result = overlay(image, truth, (10, 20, 30), alpha=0.25)
    assert np.array_equal(image, before)
    assert np.array_equal(result[~truth], image[~truth])
    inner = np.s_[7:18, 7:28]
    assert np.array_equal(result[inner], np.rint(image[inner] * 0.75 + np.array([10, 20, 30]) * 0.25).astype(np.uint8))
    assert (result[5, 5:30] == (10, 20, 30)).all()  # the outline


def test_overlay_without_opacity_is_the_image(example):
    image, truth, _ = example
    assert np.array_equal(overlay(image, truth, alpha=0.0), image)


def test_outline_of_an_object_at_the_border_is_closed():
    image, mask = np.zeros((4, 4, 3), dtype=np.uint8), np.ones((4, 4), dtype=bool)
    drawn = (overlay(image, mask, (255, 255, 255), alpha=0.1) == 255).all(axis=2)
    expected = mask.copy()
    expected[1:3, 1:3] = False
    assert np.array_equal(drawn, expected)


def test_overlap_picture_colours_hits_alarms_and_misses(example):
    image, truth, prediction = example
    picture = overlap_picture(image, truth, prediction, alpha=1.0)
    assert (picture[truth & prediction] == TRUE_POSITIVE_COLOR).all()
    assert (picture[~truth & prediction] == FALSE_POSITIVE_COLOR).all()
    assert (picture[truth & ~prediction] == FALSE_NEGATIVE_COLOR).all()
    rest = picture[~truth & ~prediction]
    assert (rest == rest[:, :1]).all()  # grey


def test_grid_takes_rows_in_each_form_and_leaves_no_other_file(example, tmp_path):
    image, truth, prediction = example
    rows = [
        SampleRow(image, "the ship", truth, prediction, "IoU 0.42"),
        (image, "a very long expression " * 20, truth, prediction),
        {"image": torch.from_numpy(image), "expression": "no $\\frac$ mathtext", "truth": truth,
         "prediction": torch.from_numpy(prediction)},
    ]  # fmt: skip
    path = tmp_path / "new" / "grid.png"
    save_sample_grid(path, rows, columns=2, title="three of them", dpi=50)
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[1] > 2 * 4 * 1.7 * 50
    # The overlap's colours are really in the picture.
    for color in (TRUE_POSITIVE_COLOR, FALSE_POSITIVE_COLOR, FALSE_NEGATIVE_COLOR):
        assert (np.abs(picture.astype(int) - color).max(axis=2) <= 2).any()


def test_failed_writing_leaves_the_old_file(example, tmp_path, monkeypatch):
    image, truth, prediction = example
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("rrsis.visualization.Figure.savefig", fail)
    with pytest.raises(OSError, match="no space"):
        save_sample_grid(path, [(image, "ship", truth, prediction)])
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def test_curves_from_a_trainers_log_history(tmp_path):
    history = [
        {"loss": 5.0 / (step + 1), "learning_rate": 1e-3, "step": step, "epoch": 0.1} for step in range(0, 100, 5)
    ]
    history += [{"eval_loss": 1.0, "eval_mIoU": 0.1 * i, "eval_oIoU": 0.12 * i, "step": 20 * i} for i in range(1, 5)]
    history += [{"train_runtime": 3.0, "step": 100}, {"eval_mIoU": 0.5}]
    save_curves(tmp_path / "curves.png", history)
    both = np.asarray(Image.open(tmp_path / "curves.png"))
    save_curves(tmp_path / "loss.png", [{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}])
    one = np.asarray(Image.open(tmp_path / "loss.png"))
    assert one.shape[1] < both.shape[1]
    with pytest.raises(ValueError, match="log_history"):
        save_curves(tmp_path / "none.png", [{"step": 3, "learning_rate": 1.0}])
    assert not (tmp_path / "none.png").exists()


def test_matplotlibs_global_state_is_untouched(example, tmp_path):
    import sys

    image, truth, prediction = example
    before, backend = matplotlib.rcParams.copy(), matplotlib.rcParams._get("backend")
    pyplot_loaded = "matplotlib.pyplot" in sys.modules
    save_sample_grid(tmp_path / "grid.png", [(image, "ship", truth, prediction)])
    save_curves(tmp_path / "curves.png", [{"loss": 1.0, "step": 1}])
    assert matplotlib.rcParams._get("backend") == backend
    assert all(matplotlib.rcParams._get(name) == value for name, value in before.items() if name != "backend")
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_loaded


def test_save_image_writes_masks_as_0_and_255(example, tmp_path):
    _, truth, _ = example
    save_image(tmp_path / "mask.png", truth)
    stored = Image.open(tmp_path / "mask.png")
    assert stored.mode == "L"
    assert np.array_equal(np.asarray(stored), np.where(truth, 255, 0))
    with pytest.raises(TypeError, match="float64"):
        save_image(tmp_path / "mask.png", truth * 1.0)


def test_bad_input_is_refused_with_the_arguments_name(example, tmp_path):
    image, truth, prediction = example
    with pytest.raises(TypeError, match="image: got dtype float64"):
        overlay(image / 255, truth)
    with pytest.raises(ValueError, match="image: got shape"):
        overlay(image[..., :2], truth)
    with pytest.raises(TypeError, match="mask: got dtype uint8"):
        overlay(image, truth.astype(np.uint8))
    with pytest.raises(ValueError, match="mask: got shape"):
        overlay(image, truth[:3])
    with pytest.raises(ValueError, match="alpha: got 1.5"):
        overlay(image, truth, alpha=1.5)
    with pytest.raises(ValueError, match="color"):
        overlay(image, truth, color=(1, 2, 300))
    with pytest.raises(ValueError, match="rows: got none"):
        save_sample_grid(tmp_path / "grid.png", [])
    with pytest.raises(ValueError, match="columns: got 0"):
        save_sample_grid(tmp_path / "grid.png", [(image, "ship", truth, prediction)], columns=0)
    with pytest.raises(ValueError, match="prediction: got shape"):
        save_sample_grid(tmp_path / "grid.png", [(image, "ship", truth, prediction[:3])])
    assert not list(tmp_path.iterdir())
