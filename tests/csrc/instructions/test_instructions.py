import instruction_count as counting
import pytest

WRITE = "python tests/csrc/instructions/instruction_count.py --write"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if reason := counting.missing():
        pytest.skip(reason)
    if counting.compiler_name() not in counting.committed():
        pytest.skip(
            f"no figures of {counting.compiler_name()}: python tests/csrc/instructions/instruction_count.py --write"
        )
    return counting.build(tmp_path_factory.mktemp("driver"))


@pytest.mark.parametrize("case", counting.CASES)
@pytest.mark.parametrize("capability", counting.CAPABILITIES)
def test_a_kernel_runs_no_more_instructions_than_committed(driver, capability, case):
    due = counting.committed()[counting.compiler_name()][f"{capability}, {case}"]
    came = counting.count(driver, capability, case)
    assert came <= counting.ALLOWED_GROWTH * due, (
        f"{capability}, {case}: {came:,d} instructions, {came / due - 1:+.1%} over the committed {due:,d}; "
        f"where that is worth it: {WRITE}"
    )


def test_a_larger_problem_counts_more(driver, monkeypatch):
    small = counting.count(driver, "avx2", "bsc_forward")
    monkeypatch.setitem(counting.CASES, "larger", ("bsc_forward", "float32", 500, 64, 4, 24, 2))
    assert counting.count(driver, "avx2", "larger") > counting.ALLOWED_GROWTH * small


def test_every_committed_figure_has_its_case():
    due = {f"{capability}, {case}" for capability in counting.CAPABILITIES for case in counting.CASES}
    for figures in counting.committed().values():
        assert set(figures) == due
