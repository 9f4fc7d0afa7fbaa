"""What README and docs say can be typed: code runs, options exist, links lead somewhere, pictures are small."""

import importlib
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = ("benchmarks", "examples/serve_cpp")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(ROOT / name / "README.md" for name in FOLDERS),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(text, language):
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text):
    """The commands of the shell blocks, continuation lines joined."""
    return [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def known_options(module):
    """The long options of a command of this package."""
    if module in ("predict", "export", "app") or module.startswith("data."):
        place = f"{module}.__main__" if module in ("app", "data.synthetic") else module
        parser = importlib.import_module(f"rrsis.{place}")._parser()
    else:
        from transformers import HfArgumentParser

        from rrsis import ablate, evaluate, train

        classes = {
            "train": (train.ModelArguments, train.DataArguments, train.RunArguments),
            "evaluate": (evaluate.EvaluationArguments,),
            "ablate": (ablate.AblateArguments,),
        }
        parser = HfArgumentParser(classes[module])
    return {option for action in parser._actions for option in action.option_strings}


def test_the_two_commands_stand_on_the_first_screen():
    first_screen = README.splitlines()[:30]
    assert "pip install -e . && python -m rrsis.train" in first_screen
    assert 'pip install -e ".[test]" && pytest' in first_screen


def test_operators_in_ten_lines_run_as_printed():
    (code,) = [block for block in blocks(README, "python") if "bidirectional_spatial_correlation" in block]
    assert len(code.strip().splitlines()) <= 10
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["out"].painted.shape == (1, 3600, 256)
    assert torch.isfinite(names["pixels"].grad).all()


def test_layer_swap_in_three_lines_runs_as_printed(capsys):
    dino = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino", exc_type=ImportError)
    (code,) = [block for block in blocks(README, "python") if "accelerate" in block]
    assert sum(bool(line.strip()) for line in code.splitlines()) == 3

    class LoadedModel:
        """Stands for a folder with weights: one fusion layer of the real class."""

        @staticmethod
        def from_pretrained(folder):
            config = dino.GroundingDinoConfig(d_model=16, encoder_ffn_dim=32, encoder_attention_heads=4)
            return torch.nn.ModuleList([dino.GroundingDinoBiMultiHeadAttention(config)])

    exec(
        compile(code, "README.md", "exec"), {"GroundingDinoForObjectDetection": LoadedModel, "folder": "grounding-dino"}
    )
    assert capsys.readouterr().out == "1 layers swapped\n"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_of_printed_commands_exist(document):
    text = document.read_text(encoding="utf-8")
    inline = re.findall(r"`(python -m [^`]+)`", text)
    for command in [*commands(text), *inline]:
        found = re.search(r"-m rrsis\.(train|evaluate|predict|export|ablate|app|data\.\w+)\b(.*)", command, re.DOTALL)
        if found:
            options = set(re.findall(r"(?<!\S)--[a-z_0-9]+", found[2]))
            assert options <= known_options(found[1]), command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), f"{document.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{document.name}: {target}"


def test_pictures_are_small_enough_for_a_first_screen():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size <= 300_000, picture


def test_no_document_claims_the_publications_figures():
    """Where the published figures stand, it also stands that they are not this project's."""
    table = README.index("77.79 / 64.20")
    assert "**not ours**" in README[table - 600 : table]
    assert README.index("own reading") > 0
