"""`python -m benchmarks.report` on small files of pytest-benchmark's layout."""

import json

import pytest
from PIL import Image

from benchmarks.report import main, report, to_markdown


def entry(group, implementation, median, ratio):
    return {
        "group": group,
        "extra_info": {"implementation": implementation, "threads": 2, "median_ratio_to_ours": ratio},
        "stats": {"median": median, "min": median / 2, "rounds": 7},
    }


@pytest.fixture
def document():
    return {
        "machine_info": {
            "cpu": {"brand_raw": "A processor", "count": 2},
            "machine": "x86_64",
            "python_version": "3.11.7",
            "versions": {"torch": "2.15.0"},
        },
        "commit_info": {"id": "0123456789abcdef", "dirty": True},
        "datetime": "2026-11-23T12:00:00",
        "benchmarks": [
            entry("bsc forward N=900 C=512", "rrsis_kernels", 0.010, 1.0),
            entry("bsc forward N=900 C=512", "eager", 0.025, 2.5),
            entry("bsc forward+backward N=900 C=512", "eager", 0.5, None),
            {"group": None, "extra_info": {}, "stats": {}},
        ],
    }


@pytest.fixture
def file(document, tmp_path):
    path = tmp_path / "bsc.json"
    path.write_text(json.dumps(document))
    return path


def test_tables_and_plots(file, tmp_path):
    out = tmp_path / "out"
    written = report([file], out)
    assert sorted(path.name for path in written) == ["bsc-bsc-forward-backward.png", "bsc-bsc-forward.png", "report.md"]
    assert sorted(out.iterdir()) == sorted(written)
    table = (out / "report.md").read_text()
    assert "A processor, 2 logical cores, 2 thread(s); Python 3.11.7, torch 2.15.0" in table
    assert "commit 0123456789ab with changes; 2026-11-23" in table
    assert "| bsc forward N=900 C=512 | eager | 25.000 | 12.500 | 2.50 | 7 |" in table
    assert "| bsc forward+backward N=900 C=512 | eager | 500.000 | 250.000 | – | 7 |" in table, (
        "ours was not timed there"
    )
    with Image.open(out / "bsc-bsc-forward.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("L").getcolors()) > 10, "an empty picture"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("machine_info"), "machine_info"),
        (lambda document: document["benchmarks"][0]["extra_info"].pop("threads"), "threads"),
        (lambda document: document.update(benchmarks=[]), "it has none"),
    ],
)
def test_a_broken_file_is_named_and_nothing_is_written(document, tmp_path, change, message):
    change(document)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match=rf"broken\.json must .*{message}"):
        main([str(path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_table_for_no_file_has_a_heading_only():
    assert "| what |" not in to_markdown([])
