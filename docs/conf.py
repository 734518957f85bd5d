"""Sphinx settings: ``make docs`` builds the site from the very pages that GitHub shows.

The source folder is the root of the repository, so every link (``../SECURITY.md``, ``docs/operator.md``) works in both
places. The site loads nothing from elsewhere: fonts are those of the reader's system, the search runs in the browser.
"""

from sphinx.application import Sphinx

project = "ModelExport"
html_title = "ModelExport"
root_doc = "README"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [".*", "build", "modelexport-store", "testdata", "tests"]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
highlight_language = "none"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False

NAVIGATION = {
    "Use": "getting-started cli sdk install checkpoints options reading-files artifacts verification evaluation",
    "Operate": "operator gitops faults threat-model",
    "Reference": "api support-matrix reasons metrics benchmarks",
    "Develop": "architecture where glossary adr/README /CONTRIBUTING /RELEASING /CHANGELOG /SECURITY",
}
"""The groups of the side bar, with pages of ``docs/`` or, after a slash, of the root."""
CHILDREN = {"docs/operator": "runbooks/*", "docs/adr/README": "[0-9]*"}
"""Pages whose neighbours are below them in the side bar."""


def toctree(pages: str, *options: str) -> str:
    """Return the directive that puts pages into the side bar."""
    return "\n".join(["", "```{toctree}", *options, ":hidden:", "", *pages.split(), "```", ""])


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the navigation to a page; in the file itself GitHub would show it as text."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            paths = " ".join(name if name.startswith("/") else f"/docs/{name}" for name in pages.split())
            source[0] += toctree(paths, f":caption: {caption}")
    elif page in CHILDREN:
        source[0] += toctree(CHILDREN[page], ":glob:")


def setup(app: Sphinx) -> None:
    """Connect what is done here to Sphinx."""
    app.connect("source-read", add_navigation)
