"""The site's links: those of the repository, turned; `.ci/run` builds the site itself, with warnings as errors."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

exceptions = pytest.importorskip("mkdocs.exceptions", reason='MkDocs comes with pip install -e ".[docs]"')
markdown = pytest.importorskip("markdown")

HOOKS = Path(__file__).parents[1] / "scripts" / "mkdocs_hooks.py"


@pytest.fixture
def hooks():
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", HOOKS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def render(hooks, page, text, source_url=""):
    """A page's Markdown as HTML, with the hooks called as MkDocs calls them."""
    config = hooks.on_config(SimpleNamespace(extra={"source_url": source_url}, markdown_extensions=[]))
    hooks.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=page)), config, None)
    return markdown.markdown(text, extensions=config.markdown_extensions)


@pytest.mark.parametrize(
    ("page", "target", "due"),
    [
        ("index.md", "docs/training.md#evaluate", "training.md#evaluate"),
        ("index.md", "docs/images/app.png", "images/app.png"),
        ("training.md", "../README.md#predict", "index.md#predict"),
        ("training.md", "data.md", "data.md"),
        ("training.md", "#recipes", "#recipes"),
        ("api/backends.md", "../kernels.md#backends", "../kernels.md#backends"),
        ("serve-cpp.md", "../../docs/serving.md", "serving.md"),
        ("performance.md", "../benchmarks/README.md", "benchmarks.md"),
        ("index.md", "https://arxiv.org/abs/2502.08486", "https://arxiv.org/abs/2502.08486"),
    ],
)
def test_links_between_pages_lead_to_pages(hooks, page, target, due):
    assert render(hooks, page, f"[there]({target})") == f'<p><a href="{due}">there</a></p>'


def test_links_to_other_files_lead_to_the_repository_where_it_is_known(hooks):
    html = render(hooks, "training.md", "[rules](../rrsis/metrics.py#L1)", source_url="https://host/blob/main/")
    assert html == '<p><a href="https://host/blob/main/rrsis/metrics.py#L1">rules</a></p>'


def test_links_to_other_files_become_text_where_it_is_not(hooks):
    assert render(hooks, "training.md", "[rules](../rrsis/metrics.py).") == (
        "<p><span>rules (<code>rrsis/metrics.py</code>)</span>.</p>"
    )
    named = render(hooks, "training.md", "[`rrsis/metrics.py`](../rrsis/metrics.py)")
    assert named == "<p><span><code>rrsis/metrics.py</code></span></p>"


def test_a_link_to_nothing_is_an_error(hooks):
    with pytest.raises(exceptions.PluginError, match=r"docs/data.md: the link \.\./rrsis/gone.py"):
        render(hooks, "data.md", "[gone](../rrsis/gone.py)")


def test_text_that_a_browser_would_swallow_is_an_error(hooks):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="api/operators.md"))
    html = '<p>An <em class="x">apple</em> &lt; 3<br/><!-- --></p>'
    assert hooks.on_page_content(html, page, None, None) == html
    with pytest.raises(exceptions.PluginError, match=r"operators.md: '<key\[h\], pixel"):
        hooks.on_page_content("<p><key[h], pixel[n]> + b</p>", page, None, None)
