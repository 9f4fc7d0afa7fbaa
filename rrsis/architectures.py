"""The model that a configuration asks for: BTDNet, or the baseline."""

from __future__ import annotations

import os

from rrsis.config import BTDNetConfig
from rrsis.lavt import LAVTForReferringSegmentation
from rrsis.model import BTDNetForReferringSegmentation, ReferringModel

MODELS: dict[str, type[ReferringModel]] = {
    "btdnet": BTDNetForReferringSegmentation,
    "lavt": LAVTForReferringSegmentation,
}
"""By the configuration's `architecture`."""


def make_model(config: BTDNetConfig) -> ReferringModel:
    """A new model with random weights."""
    return MODELS[config.architecture](config)


def load_model(folder: str | os.PathLike[str]) -> ReferringModel:
    """The model of a folder that `save_pretrained` wrote, whichever it is.

    Raises:
        OSError: a file is missing.
        ValueError: the folder's configuration does not hold.
    """
    config = BTDNetConfig.from_pretrained(folder)
    return MODELS[config.architecture].from_pretrained(folder, config=config)
