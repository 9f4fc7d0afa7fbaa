"""Data sets for referring remote-sensing image segmentation."""

from .build import DATASETS, build_dataset
from .refsegrs import RefSegRS
from .risbench import RISBench
from .rrsisd import RRSISD
from .synthetic import SynthConfig, SynthRRSIS
from .types import SPLITS, ReferringDataset, ReferringSample
from .writers import write_layout

__all__ = [
    "DATASETS",
    "SPLITS",
    "RISBench",
    "RRSISD",
    "RefSegRS",
    "ReferringDataset",
    "ReferringSample",
    "SynthConfig",
    "SynthRRSIS",
    "build_dataset",
    "write_layout",
]
