"""SynthRRSIS: procedural aerial scenes with unambiguous referring expressions."""

from .config import CONFIGS, KINDS, SynthConfig
from .dataset import NUM_SCENES, SynthRRSIS
from .scene import Scene, SceneObject, Statement

__all__ = ["CONFIGS", "KINDS", "NUM_SCENES", "Scene", "SceneObject", "Statement", "SynthConfig", "SynthRRSIS"]
