"""Data sets for referring remote-sensing image segmentation."""

from .build import DATASETS, build_dataset
from .synthetic import SynthConfig, SynthRRSIS
from .types import SPLITS, ReferringDataset, ReferringSample

__all__ = [
    "DATASETS",
    "SPLITS",
    "ReferringDataset",
    "ReferringSample",
    "SynthConfig",
    "SynthRRSIS",
    "build_dataset",
]
