"""What the documentation's site needs beyond MkDocs: pages that lie outside docs/, and links that leave it.

Every document is written for the repository: its links are paths from its own folder, and tests/test_readme.py follows
them. On the site README is the home page and some more documents are pages too; links between pages lead to pages. A
link to any other file leads to ``extra.source_url`` of mkdocs.yml, the address under which the repository's files can
be read; where that is not set, the link's text stays and the file's path stands beside it as code.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/serve_cpp/README.md": "serve-cpp.md",
}
"""Documents outside docs/ that are pages of the site, and the names that they have there."""

_PRIORITY = 5
"""After the text's inline marks have become elements (20), before MkDocs checks the links (0)."""

_NO_ELEMENT = re.compile(r"<(?!/?[A-Za-z][\w-]*[\s/>]|!)[^>]{0,40}")


def site_path(path: str) -> str | None:
    """Where a file of the repository lies on the site, or None.

    Args:
        path: from the repository's root, with slashes.

    Returns:
        The path from the site's source root: inside docs/ the same, else by `OUTSIDE`.
    """
    return path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE.get(path)


def repository_path(site: str) -> str:
    """The inverse of `site_path`."""
    return next((path for path, name in OUTSIDE.items() if name == site), f"docs/{site}")


class _Links(Treeprocessor):
    """Turns the links of one page at a time."""

    page = "index.md"
    source_url: str | None = None

    def run(self, root: Element) -> None:
        for element in root.iter():
            for attribute in ("href", "src"):
                target = element.get(attribute)
                if target and not urlsplit(target).scheme and not target.startswith(("#", "/")):
                    self._turn(element, attribute, target)

    def _turn(self, element: Element, attribute: str, target: str) -> None:
        link, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(self.page)), link))
        if path.startswith("..") or not (ROOT / path).exists():
            # Not a warning of MkDocs, which would take a path outside docs/ for a page that is missing.
            raise PluginError(f"{repository_path(self.page)}: the link {target} leads to no file of the repository")
        place = site_path(path)
        if place is not None:
            relative = posixpath.relpath(place, posixpath.dirname(self.page) or ".")
            element.set(attribute, f"{relative}#{anchor}" if anchor else relative)
        elif self.source_url:
            element.set(attribute, f"{self.source_url.rstrip('/')}/{path}{'#' + anchor if anchor else ''}")
        else:
            _as_text(element, path)


def _as_text(link: Element, path: str) -> None:
    """Makes a link a span: its text, and the path as code where the text does not say it."""
    text = "".join(link.itertext())
    link.tag = "span"
    link.attrib.clear()
    if not path.endswith(text):
        last = link[-1] if len(link) else None
        if last is None:
            link.text = f"{link.text} ("
        else:
            last.tail = f"{last.tail or ''} ("
        code = Element("code")
        code.text, code.tail = path, ")"
        link.append(code)


class _LinksExtension(Extension):
    """Brings `_Links` into MkDocs' Markdown."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(_links, "repository_links", _PRIORITY)


_links = _Links()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Brings the links' extension in."""
    _links.source_url = config.extra.get("source_url") or None
    config.markdown_extensions.append(_LinksExtension())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside docs/."""
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Notes whose links are turned next."""
    _links.page = page.file.src_uri
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Refuses what Markdown took for an HTML element and a browser would not show, such as <key[h], pixel>.

    Raises:
        PluginError: there is such text on the page.
    """
    lost = None if page.file.src_uri.endswith(".ipynb") else _NO_ELEMENT.search(html)  # these bring scripts
    if lost:
        raise PluginError(f"{page.file.src_uri}: {lost[0]!r} is taken for an HTML element; put it between backticks")
    return html
