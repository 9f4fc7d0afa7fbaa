"""docs/tutorial.ipynb runs from top to bottom, learns its scenes and shows them; its outputs are not committed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_valid_and_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code), "clear all outputs"


@pytest.mark.slow
def test_it_runs_and_learns(notebook, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # whoever runs the tests keeps the profile as it is
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # Left to themselves, busy machines need longer than a kernel's usual minute to start.
    client = NotebookClient(
        notebook, timeout=1800, startup_timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == sum("show(" in cell.source for cell in notebook.cells if cell.cell_type == "code")
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert float(re.search(r"learned by heart: ([\d.]+)", text)[1]) > 0.4
    differences = [float(number) for number in re.findall(r"largest difference ([\d.e+-]+)", text)]
    assert len(differences) == 3
    assert max(differences) < 1e-3
