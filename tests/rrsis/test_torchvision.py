"""rrsis._torchvision, in processes of their own: a torchvision that is broken in the known way, and none at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rrsis

GUARD = Path(rrsis.__file__).with_name("_torchvision.py")

# What torchvision does when its compiled library does not load.
BROKEN = """
import torch

@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold):
    return dets.new_empty(0)

@torch.library.register_fake("torchvision::qnms")
def meta_qnms(dets, scores, iou_threshold):
    return dets.new_empty(0)
"""

LOAD_GUARD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("guard", sys.argv[1])
guard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guard)
"""


def run(code, folder):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", code, str(GUARD)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def broken_torchvision(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import _meta_registrations\n")
    (package / "_meta_registrations.py").write_text(BROKEN)
    return tmp_path


def test_the_known_failure_is_what_is_mended(broken_torchvision):
    without = run("import torchvision", broken_torchvision)
    assert "operator torchvision::nms does not exist" in without.stderr
    mended = run(LOAD_GUARD + "import torchvision; print('imported')", broken_torchvision)
    assert mended.stdout.strip() == "imported", mended.stderr


def test_another_failure_is_passed_on(broken_torchvision):
    (broken_torchvision / "torchvision" / "_meta_registrations.py").write_text("raise RuntimeError('something else')\n")
    assert "RuntimeError: something else" in run(LOAD_GUARD, broken_torchvision).stderr


def test_a_working_torchvision_is_left_alone(broken_torchvision):
    (broken_torchvision / "torchvision" / "_meta_registrations.py").write_text("works = True\n")
    code = LOAD_GUARD + "import torchvision; print(guard._declarations, torchvision._meta_registrations.works)"
    assert run(code, broken_torchvision).stdout.strip() == "[] True"
