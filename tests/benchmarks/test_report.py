"""`python -m benchmarks.report` on small files of pytest-benchmark's layout."""

import json

import pytest
from PIL import Image

from benchmarks.report import main, report
from benchmarks.results import merge, read

HEADLINE = "bsc forward B=1 N=900 C=512"


def entry(group, implementation, median, threads=1, **extra):
    return {
        "group": group,
        "extra_info": {"implementation": implementation, "threads": threads, **extra},
        "stats": {"median": median, "min": median / 2, "rounds": 7},
    }


def scaling_entry(size, median):
    place = {"axis": "pixels", "what": "forward C=64", "size": size}
    return entry(f"bsc scaling over pixels, forward N={size}", "rrsis_kernels", median, scaling=place)


def document(*benchmarks, commit="0123456789abcdef"):
    return {
        "machine_info": {
            "cpu": {"brand_raw": "A processor", "count": 2},
            "machine": "x86_64",
            "python_version": "3.11.7",
            "versions": {"torch": "2.15.0"},
        },
        "commit_info": {"id": commit, "dirty": True},
        "datetime": "2026-11-23T12:00:00",
        "benchmarks": [*benchmarks, {"group": None, "extra_info": {}, "stats": {}}],
    }


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="bsc.json"):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return to_file


def comparison(ours, eager, bare, **extra):
    return [
        entry(HEADLINE, "rrsis_kernels", ours, **extra, median_ratio_to_limit=ours / bare, peak_extra_mib=3.0),
        entry(HEADLINE, "eager", eager, **extra, median_ratio_to_ours=eager / ours, peak_extra_mib=12.0),
        entry(HEADLINE, "bare forward products", bare, **extra, median_ratio_to_ours=bare / ours),
    ]


def test_tables_and_plots(write, tmp_path):
    file = write(
        document(
            *comparison(0.010, 0.025, 0.008),
            entry("bsc backward B=1 N=900 C=512", "eager", 0.5, peak_extra_reason="no /proc"),
            *(scaling_entry(size, 1e-5 * size) for size in (100, 800)),
        )
    )
    out = tmp_path / "out"
    written = report([file], out, readme_plot=tmp_path / "readme.png")
    assert sorted(path.name for path in written) == [
        "bsc-backward-1t.png",
        "bsc-forward-1t.png",
        "details.md",
        "readme.png",
        "report.md",
        "scaling-pixels-100-800.png",
        "summary.png",
    ]
    assert all(path.exists() for path in written)
    table = (out / "report.md").read_text()
    assert "A processor, 2 logical cores; Python 3.11.7, torch 2.15.0" in table
    assert "commit 0123456789ab with changes; 2026-11-23; 1 run(s)" in table
    assert "|  | ms | ± | / bare | eager |" in table
    assert "| B=1 N=900 C=512 | 10.000 | – | 1.25 | 2.50 |" in table
    assert "| B=1 N=900 C=512 | – | – | – |" in table, "ours was not timed in the backward pass"
    assert "| B=1 N=900 C=512 | 3.0 | 12.0 | – |" in table, "peak memory"
    assert "Note: no /proc." in table
    assert "| forward C=64 | rrsis_kernels | 1 | 1.000 | 8.000 | 10 → 10 | 1.00 |" in table
    details = (out / "details.md").read_text()
    assert f"| {HEADLINE} | 1 | eager | 25.000 | 12.500 | – | 1 | 2.50 | – | – | 12.0 |" in details
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.width > 500
                assert len(picture.convert("L").getcolors()) > 10, "an empty picture"


def test_repeated_runs_give_the_median_and_their_spread(write):
    times = [(0.010, 0.030), (0.012, 0.030), (0.011, 0.022)]
    runs = [read(write(document(*comparison(*pair, 0.008)), f"{index}.json")) for index, pair in enumerate(times)]
    (results,) = merge(runs)
    ours, eager = (results.by_threads[1][HEADLINE][name] for name in ("rrsis_kernels", "eager"))
    assert ours.median == 0.011
    assert ours.least == 0.005
    assert ours.spread == pytest.approx(0.002 / 0.011)
    assert ours.runs == 3
    assert ours.ratios["limit"] == pytest.approx(0.011 / 0.008)
    assert eager.ratios["ours"] == pytest.approx(2.5), "the median of the ratios, 3, 2.5 and 2, not their quotient"
    assert results.facts.endswith("3 run(s)")


def test_threads_and_commits_are_kept_apart(write):
    files = [
        write(document(*comparison(0.010, 0.030, 0.008)), "one.json"),
        write(document(*comparison(0.006, 0.020, 0.005, threads=2)), "two.json"),
        write(document(*comparison(0.001, 0.002, 0.001), commit="fedcba"), "other.json"),
    ]
    first, second = merge(map(read, files))
    assert {threads: groups[HEADLINE]["eager"].median for threads, groups in first.by_threads.items()} == {
        1: 0.030,
        2: 0.020,
    }
    assert "commit fedcba" in second.facts
    assert second.by_threads[1][HEADLINE]["eager"].spread is None


def test_a_picture_for_the_readme_needs_a_headline(write, tmp_path):
    file = write(document(entry("bsc backward N=900", "eager", 0.5)))
    with pytest.raises(SystemExit, match="--readme-plot needs one of these suites with its peers: bsc forward"):
        main([str(file), "--out", str(tmp_path / "out"), "--readme-plot", str(tmp_path / "readme.png")])
    assert not (tmp_path / "out").exists()
    assert "summary.png" not in {path.name for path in report([file], tmp_path / "out")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("machine_info"), "machine_info"),
        (lambda content: content["benchmarks"][0]["extra_info"].pop("threads"), "threads"),
        (lambda content: content["benchmarks"][0]["stats"].pop("median"), "median"),
        (lambda content: content.update(benchmarks=[]), "it has none"),
    ],
)
def test_a_broken_file_is_named_and_nothing_is_written(write, tmp_path, change, message):
    content = document(*comparison(0.010, 0.030, 0.008))
    change(content)
    path = write(content, "broken.json")
    with pytest.raises(SystemExit, match=rf"broken\.json must .*{message}"):
        main([str(path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
