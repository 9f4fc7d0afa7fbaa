"""scripts/relation_shortcuts.py: how many relations need no anchor."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "relation_shortcuts.py"


def test_both_kinds_of_relations_are_counted_in_each_difficulty_that_has_them():
    printed = subprocess.run(
        [sys.executable, SCRIPT, "--scenes", "200"], capture_output=True, text=True, check=True
    ).stdout
    rows = re.findall(r"(\w+): (\d+) of (\w+): shortcut ([\d.]+)%, chance ([\d.]+)%", printed)
    assert [(row[0], row[2]) for row in rows] == [
        (difficulty, group) for difficulty in ("default", "hard", "relations") for group in ("direction", "nearness")
    ]
    for difficulty, total, group, shortcut, chance in rows:
        assert int(total) > 0
        assert 0 < float(chance) < 60  # every referred object has another of its class beside it
        if (difficulty, group) == ("relations", "direction"):
            assert abs(float(shortcut) - float(chance)) < 15  # the anchor has to be found
        else:
            assert float(shortcut) > float(chance)
