"""Options, quick settings and the table of ratios."""

import gc
from collections import defaultdict
from importlib.metadata import version

import pytest
import torch

from benchmarks import scaling
from benchmarks.measure import OURS
from benchmarks.operators import BACKWARD, BOTH, FORWARD, limits
from benchmarks.ratios import KINDS, ratios
from rrsis_kernels.info import cpu_capability

PASS_OF_TEST = {"test_forward": FORWARD, "test_backward": BACKWARD, "test_forward_backward": BOTH}
"""Which limit lines stand beside a test, by its name."""

STATISTICS = ("median", "min")
"""The times that are compared."""


def pytest_addoption(parser):
    group = parser.getgroup("rrsis benchmarks")
    group.addoption("--quick", action="store_true", help="small shapes, short timing (the default)")
    group.addoption(
        "--full", action="store_true", help="the shapes of docs/performance.md, and torch.compile as a peer"
    )
    group.addoption("--threads", type=int, default=None, help="threads of PyTorch (default: its own choice)")


def pytest_configure(config):
    if config.getoption("quick") and config.getoption("full"):
        raise pytest.UsageError("--quick and --full exclude each other")
    threads = config.getoption("threads")
    if threads is not None:
        if threads < 1:
            raise pytest.UsageError(f"--threads: got {threads}, expected at least 1")
        torch.set_num_threads(threads)


def is_full(config):
    """Whether the full shapes were asked for."""
    return config.getoption("full")


def _name(shape):
    """(1, 900, "C=64", (4, 20)) → "1x900xC=64x4x20"."""
    return "x".join(_name(part) if isinstance(part, tuple) else str(part) for part in shape)


def pytest_generate_tests(metafunc):
    """Gives a test that takes `shape` its module's QUICK or FULL shapes, one that takes `implementation` the peers."""
    module = metafunc.module
    if "shape" in metafunc.fixturenames:
        shapes = module.FULL if is_full(metafunc.config) else module.QUICK
        metafunc.parametrize("shape", shapes, ids=map(_name, shapes))
    if "implementation" in metafunc.fixturenames:
        names = list(module.IMPLEMENTATIONS)
        if not is_full(metafunc.config):
            # Compiling takes longer than all other quick timings together.
            names = [name for name in names if "compile" not in name]
        if getattr(module, "HAS_LIMITS", False):
            names += limits(PASS_OF_TEST[metafunc.function.__name__])
        metafunc.parametrize("implementation", names)


def pytest_collection_modifyitems(config, items):
    if not is_full(config):
        for item in items:
            item.add_marker(pytest.mark.benchmark(max_time=0.1, min_rounds=5))


def pytest_collection_finish(session):
    """Spares each later collection of garbage the modules that are loaded by now: a quarter of a second a test."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _same_start():
    """The same numbers for every implementation, and no shape that torch.compile has seen: it would make it dynamic."""
    torch.manual_seed(0)
    torch.compiler.reset()


def _timed(config):
    session = getattr(config, "_benchmarksession", None)
    records = [] if session is None else session.benchmarks
    return [record for record in records if "implementation" in record.extra_info and record.stats.data]


def _compared(config):
    """Those timings that belong to a group of implementations, and not to a series."""
    return [record for record in _timed(config) if "scaling" not in record.extra_info]


def _by_group(records):
    """group → implementation → record, groups together."""
    groups = defaultdict(dict)
    for record in records:
        groups[record.group][record.extra_info["implementation"]] = record
    return groups


def _ratios_by_statistic(by_name):
    """statistic → implementation → kind → ratio."""
    return {
        what: ratios({name: getattr(record.stats, what) for name, record in by_name.items()}) for what in STATISTICS
    }


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["versions"] = {
        "torch": str(torch.__version__),
        "rrsis": version("rrsis"),
        "instructions": cpu_capability()["active"],
    }


def pytest_benchmark_update_json(config, benchmarks, output_json):
    found = {group: _ratios_by_statistic(by_name) for group, by_name in _by_group(_compared(config)).items()}
    for entry in output_json["benchmarks"]:
        name = entry["extra_info"].get("implementation")
        if name is None or entry["group"] not in found:
            continue
        for what, by_name in found[entry["group"]].items():
            entry["extra_info"] |= {f"{what}_ratio_to_{kind}": ratio for kind, ratio in by_name.get(name, {}).items()}


def _line(record, by_statistic, width):
    """One row of the terminal's table."""
    name = record.extra_info["implementation"]
    columns = [f"    {name:<{width}}"]
    columns += [f"{what} {1e3 * getattr(record.stats, what):10.3f} ms" for what in STATISTICS]
    of_kind = by_statistic["median"][name]
    columns += [f"{of_kind[kind]:6.2f} x {label}" for kind, label in KINDS.items() if kind in of_kind]
    if "peak_extra_mib" in record.extra_info:
        columns.append(f"{record.extra_info['peak_extra_mib']:9.1f} MiB")
    return "  ".join(columns)


def _write_ratios(terminalreporter, groups):
    terminalreporter.section(f"medians as multiples of {OURS} and of the bare products; peak of extra memory")
    width = max(len(name) for by_name in groups.values() for name in by_name)
    for group, by_name in groups.items():
        terminalreporter.write_line(group)
        by_statistic = _ratios_by_statistic(by_name)
        for record in by_name.values():
            terminalreporter.write_line(_line(record, by_statistic, width))


def _write_scaling(terminalreporter, series):
    terminalreporter.section("growth of the medians with a size; what threads bring")
    for (axis, sizes), lines in scaling.by_axis(series).items():
        table = [scaling.header(axis, sizes), *map(scaling.row, lines)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for cells in table:
            terminalreporter.write_line(
                "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
            )


def pytest_terminal_summary(terminalreporter, config):
    groups = _by_group(_compared(config))
    if groups:
        _write_ratios(terminalreporter, groups)
    series = scaling.collect((record.extra_info, record.stats.median) for record in _timed(config))
    if series:
        _write_scaling(terminalreporter, series)
