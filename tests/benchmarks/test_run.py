"""A run of the benchmarks as one types it: the ratios are in the JSON and in the table at its end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_ratios_are_in_the_json_and_in_the_last_table(tmp_path):
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "pytest", "benchmarks/test_twin_stream.py", "-k", "test_backward and not rrsis"]
    command += ["--benchmark-only", "-p", "no:cacheprovider", "--threads", "1", "--benchmark-json", str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    entries = {entry["extra_info"]["implementation"]: entry for entry in json.loads(found.read_text())["benchmarks"]}
    eager, own, forward = (entries[name] for name in ("eager", "bare backward products", "bare forward products"))
    for what in ("median", "min"):
        for kind, limit in (("limit", own), ("forward_limit", forward)):
            due = eager["stats"][what] / limit["stats"][what]
            assert eager["extra_info"][f"{what}_ratio_to_{kind}"] == pytest.approx(due)
    assert "median_ratio_to_ours" not in eager["extra_info"], "ours was not timed"
    assert eager["extra_info"]["threads"] == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("    eager "))
    assert "x bare " in line
    assert "x bare forward" in line
