"""Recipes: YAML files whose keys are the options of a command, so that what was trained how can be committed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml


def read_recipe(path: str, known: Collection[str]) -> list[str]:
    """Reads a recipe as the words of a command line, so that it is checked and converted as one.

    Args:
        path: a YAML file, one `option: value` a line. A mapping becomes JSON, a list several words; null leaves an
            option at its default.
        known: names of the options.

    Returns:
        `["--option", "value", ...]`.

    Raises:
        ValueError: when there is no such file, it is not a mapping in YAML, or a key is no option.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config must be a readable YAML file; got {path}: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"--config {path} must hold `option: value` lines; got a {type(recipe).__name__}")
    words = []
    for key, value in recipe.items():
        if key not in known:
            raise ValueError(f"--config {path}: {unknown_option(str(key), known)}")
        if value is not None:
            words += [f"--{key}", *_words(value)]
    return words


def unknown_option(name: str, known: Collection[str]) -> str:
    """What to say about an option that does not exist: its name, and the one that was probably meant."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"there is no option {name!r}; the nearest one is {nearest[0]!r}"


def _words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [json.dumps(value)]
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]
