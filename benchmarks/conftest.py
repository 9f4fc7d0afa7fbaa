"""Options, quick settings and the table of ratios."""

from collections import defaultdict
from importlib.metadata import version

import pytest
import torch

from benchmarks.measure import OURS
from rrsis_kernels.info import cpu_capability


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


def pytest_generate_tests(metafunc):
    """Gives a test that takes `shape` its module's QUICK or FULL shapes, one that takes `implementation` the peers."""
    module = metafunc.module
    if "shape" in metafunc.fixturenames:
        shapes = module.FULL if is_full(metafunc.config) else module.QUICK
        metafunc.parametrize("shape", shapes, ids=["x".join(map(str, shape)) for shape in shapes])
    if "implementation" in metafunc.fixturenames:
        names = list(module.IMPLEMENTATIONS)
        if not is_full(metafunc.config):
            # Compiling takes longer than all other quick timings together.
            names = [name for name in names if "compile" not in name]
        if "backward" in metafunc.function.__name__:
            names = [name for name in names if name not in getattr(module, "FORWARD_ONLY", ())]
        metafunc.parametrize("implementation", names)


def pytest_collection_modifyitems(config, items):
    if not is_full(config):
        for item in items:
            item.add_marker(pytest.mark.benchmark(max_time=0.2, min_rounds=5))


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


def ratios(benchmarks):
    """Times of each implementation over those of ours, by group.

    Args:
        benchmarks: pytest-benchmark's records.

    Returns:
        (group, implementation, {"median": (seconds, ratio), "min": (seconds, ratio)}) for each record, groups together;
        a ratio is None where ours was not timed.
    """
    groups = defaultdict(dict)
    for record in benchmarks:
        groups[record.group][record.extra_info["implementation"]] = record.stats
    return [
        (group, name, {what: _over_ours(by_name, name, what) for what in ("median", "min")})
        for group, by_name in groups.items()
        for name in by_name
    ]


def _over_ours(by_name, name, what):
    seconds = getattr(by_name[name], what)
    return seconds, (seconds / getattr(by_name[OURS], what) if OURS in by_name else None)


def _timed(config):
    session = getattr(config, "_benchmarksession", None)
    records = [] if session is None else session.benchmarks
    return [record for record in records if "implementation" in record.extra_info and record.stats.data]


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["versions"] = {
        "torch": str(torch.__version__),
        "rrsis": version("rrsis"),
        "instructions": cpu_capability()["active"],
    }


def pytest_benchmark_update_json(config, benchmarks, output_json):
    found = {(group, name): times for group, name, times in ratios(_timed(config))}
    for entry in output_json["benchmarks"]:
        times = found.get((entry["group"], entry["extra_info"].get("implementation")))
        if times is not None:
            entry["extra_info"] |= {f"{what}_ratio_to_ours": ratio for what, (_, ratio) in times.items()}


def pytest_terminal_summary(terminalreporter, config):
    rows = ratios(_timed(config))
    if not rows:
        return
    terminalreporter.section(f"times and their ratios to those of {OURS}, {torch.get_num_threads()} thread(s)")
    width = max(len(name) for _, name, _ in rows)
    group_before = None
    for group, name, times in rows:
        if group != group_before:
            terminalreporter.write_line(group)
            group_before = group
        columns = [
            f"{what} {1e3 * seconds:10.3f} ms" + ("" if ratio is None else f" {ratio:7.2f} x")
            for what, (seconds, ratio) in times.items()
        ]
        terminalreporter.write_line(f"    {name:<{width}}  " + "   ".join(columns))
