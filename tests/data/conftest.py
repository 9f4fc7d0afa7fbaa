"""SynthRRSIS written in each published layout."""

import pytest

from rrsis.data import SynthConfig, SynthRRSIS, write_layout

SCENES = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(scope="session")
def sources():
    config = SynthConfig(image_size=96)
    return {split: SynthRRSIS(split, count, seed=5, config=config) for split, count in SCENES.items()}


@pytest.fixture(scope="session")
def written(sources, tmp_path_factory):
    """Folder of each layout."""
    root = tmp_path_factory.mktemp("layouts")
    return {layout: write_layout(sources, layout, root / layout) for layout in ("refsegrs", "rrsisd", "risbench")}
