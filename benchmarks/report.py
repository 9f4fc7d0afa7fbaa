"""`python -m benchmarks.report FILE.json … --out DIR`: pytest-benchmark's JSON as Markdown tables and plots."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plots, scaling
from benchmarks.results import Results, by_suite, merge, read
from benchmarks.tables import to_details, to_markdown
from rrsis.io import atomic_write

TABLE_FILE, DETAILS_FILE, SUMMARY_FILE = "report.md", "details.md", "summary.png"


def _slug(*parts: object) -> str:
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, parts)).lower()).strip("-")


def _save_plots(results: Results, out: Path, suffix: str) -> list[Path]:
    written = []
    for threads, groups in results.by_threads.items():
        for suite, same in by_suite(groups).items():
            written.append(out / f"{_slug(suite, f'{threads}t', suffix)}.png")
            plots.save_ratios(written[-1], f"{suite}, {threads} thread(s); {results.facts}", same)
    for (axis, sizes), same in scaling.by_axis(results.series).items():
        name = _slug("scaling", axis, sizes[0], sizes[-1], suffix)
        written.append(out / f"{name}.png")
        plots.save_scaling(written[-1], f"{axis}; {results.facts}", axis, same)
    return written


def _save_summary(results: Sequence[Results], path: Path) -> list[Path]:
    """The summary of the first origin and number of threads that has a headline; nothing where none has."""
    for one in results:
        for threads, groups in one.by_threads.items():
            headlines = plots.headline_groups(groups)
            if headlines:
                plots.save_summary(path, f"{threads} thread(s); {one.facts}", headlines)
                return [path]
    return []


def report(files: Sequence[Path], out: Path, readme_plot: Path | None = None) -> list[Path]:
    """Writes the tables, one plot for each suite and axis, and the summary.

    Args:
        files: what `--benchmark-json` wrote; runs of one machine, commit and number of threads are merged.
        out: folder for the Markdown and PNG files.
        readme_plot: another place for the summary.

    Returns:
        The files written.

    Raises:
        ValueError: a file is not what it should be, or no headline can be plotted for `readme_plot`; nothing is written
            then.
        OSError: a file cannot be read or written.
    """
    results = merge(read(path) for path in files)
    groups = [groups for one in results for groups in one.by_threads.values()]
    if readme_plot is not None and not any(map(plots.headline_groups, groups)):
        raise ValueError(f"--readme-plot needs one of these suites with its peers: {', '.join(plots.HEADLINES)}")
    written = [out / TABLE_FILE, out / DETAILS_FILE]
    for number, one in enumerate(results):
        written += _save_plots(one, out, str(number + 1) if number else "")
    for path in (out / SUMMARY_FILE, readme_plot):
        written += [] if path is None else _save_summary(results, path)
    for path, text in zip(written, (to_markdown(results), to_details(results)), strict=False):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return written


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables and plots")
    parser.add_argument("--readme-plot", type=Path, default=None, metavar="FILE.png", help="the summary, here too")
    arguments = parser.parse_args(argv)
    try:
        written = report(arguments.files, arguments.out, arguments.readme_plot)
    except (ValueError, OSError) as error:
        sys.exit(f"benchmarks.report: {error}")
    print("\n".join(map(str, written)))


if __name__ == "__main__":
    main()
