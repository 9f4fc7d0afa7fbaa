from pathlib import Path

import pytest
import torch
from rrsis_build.schemas import read_schemas, render_header

SCHEMAS = Path(__file__).parents[2] / "rrsis_kernels" / "schemas.txt"


def test_every_schema_of_the_project_is_defined_once_and_understood_by_torch():
    schemas = read_schemas(SCHEMAS)
    header = render_header(schemas)
    assert len(schemas) >= 8
    assert header.count("m.def(") == len(schemas)
    for schema in schemas:
        assert f'm.def("{schema}");' in header
        torch._C.parse_schema(f"rrsis_kernels::{schema}")


def test_text_is_escaped_for_cpp(tmp_path):
    path = tmp_path / "schemas.txt"
    path.write_text('# comment\n\nname(str mode="a\\b") -> Tensor\n')
    assert 'm.def("name(str mode=\\"a\\\\b\\") -> Tensor");' in render_header(read_schemas(path))


def test_overloads_are_different_operators(tmp_path):
    path = tmp_path / "schemas.txt"
    path.write_text("f(Tensor x) -> Tensor\nf.out(Tensor x) -> Tensor\n")
    assert len(read_schemas(path)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f(Tensor x) -> Tensor\nf(Tensor y) -> Tensor\n", "schemas.txt:2: operator 'f' is already defined"),
        ("# fine\nf(Tensor x)\n", "schemas.txt:2: expected 'name"),
        ("f Tensor -> Tensor\n", "schemas.txt:1: expected 'name"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    path = tmp_path / "schemas.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_schemas(path)
