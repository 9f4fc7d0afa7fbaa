"""The benchmarks for a GPU, as far as they run without one, and the floors that their times are divided by."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import kernel_table, traffic
from benchmarks.gpu.floors import BACKWARD, CORRELATION, COSINE, FORWARD, H200, SHAPES, STATISTICS, Floor, Shape, floor
from benchmarks.gpu.measure import COLD_BYTES, copies_of

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments, "--device", "cpu"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_floor_is_the_larger_of_moving_and_multiplying():
    assert Floor(4.3e12, 0).seconds(H200, torch.bfloat16) == pytest.approx(1)
    assert Floor(4.3e12, 3 * 790e12).seconds(H200, torch.bfloat16) == pytest.approx(3)


def test_floors_count_each_tensor_once():
    cosine = Shape(COSINE, "", 2, 10, 8)
    assert floor(cosine, FORWARD, torch.float32).bytes == 2 * 2 * 10 * 8 * 4 + 2 * 10
    assert floor(cosine, BACKWARD, torch.float32).bytes == 2 * 2 * 2 * 10 * 8 * 4 + 2 * 10
    maps = Shape(STATISTICS, "", 2, 0, 0, low=4, high=16)
    assert floor(maps, FORWARD, torch.bfloat16).bytes == 2 * 16 * 16 + 2 * 2 * 4 * 4 * 2
    assert all(floor(shape, name, torch.float32).bytes > 0 for shape in SHAPES for name in (FORWARD, BACKWARD))


def test_kernels_move_their_scores_beside_the_floor():
    pytest.importorskip("triton")
    shape = Shape(CORRELATION, "", 2, 100, 256, 4, 20)  # a block of 32 rows holds the 20 of one head
    least, done = floor(shape, FORWARD, torch.bfloat16), traffic.traffic(shape, FORWARD)
    # Scores are stored in granules of 8: 24 columns for the 20 tokens of a head.
    pixels, scores, product = 2 * 100 * 256 * 2, 2 * 100 * 4 * 24 * 2, 2 * 2 * 100 * 256 * 4 * 20
    assert done.bytes == least.bytes + pixels + 4 * scores
    assert done.flops == 2 * product + product * 128 // 80
    narrow = shape._replace(channels=128)  # whose kernel keeps the paint's scores
    least, done = floor(narrow, FORWARD, torch.bfloat16), traffic.traffic(narrow, FORWARD)
    assert done.bytes == least.bytes + pixels // 2 + 2 * scores
    for shape in (shape for shape in SHAPES if shape.op == CORRELATION):
        for name in (FORWARD, BACKWARD):
            least, done = floor(shape, name, torch.bfloat16), traffic.traffic(shape, name)
            assert done.bytes > least.bytes
            assert done.flops >= least.flops


def test_small_inputs_are_copied_more_often():
    assert copies_of([torch.empty(10)]) == 16
    assert copies_of([torch.empty(COLD_BYTES // 4)]) == 2


def test_table_goes_between_the_marks():
    page = f"before\n{kernel_table.BEGIN}\nold\n{kernel_table.END}\nafter\n"
    written = kernel_table.put_between_marks(page, ["new"])
    assert written == f"before\n{kernel_table.BEGIN}\n\nnew\n\n{kernel_table.END}\nafter\n"
    assert kernel_table.put_between_marks(written, ["new"]) == written
    text = kernel_table.PAGE.read_text(encoding="utf-8")
    assert text.count(kernel_table.BEGIN) == text.count(kernel_table.END) == 1


def test_small_run():
    done = run("benchmarks.gpu.small_run")
    assert done.returncode == 0, done.stderr
    assert "every kernel ran" in done.stdout


@pytest.mark.slow
def test_rehearsal(tmp_path):
    done = run("benchmarks.gpu", "--out", str(tmp_path / "found"))
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["records"]
    assert not [record for record in records if "failed" in record or not record["right"]]
    assert {record["what"] for record in records} == {
        "layer",
        "correlation",
        "twin stream",
        "mask statistics",
        "masked cosine",
    }
    assert len((tmp_path / "found.md").read_text(encoding="utf-8").splitlines()) == len(records) + 4
