"""How Sphinx builds these pages: `tox -e docs`, or `sphinx-build -W docs docs/_build`.

The pages are written to be read where they lie, too, so what only Sphinx understands is kept out
of them: the contents below are added to the index while it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import procession

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "procession"
author = "The procession developers"
version = release = procession.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"procession {release}"
# Links to headings, as GitHub makes them.
myst_heading_anchors = 3

# The docstrings are plain text in which single backticks mark names.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures are long, and the docstrings say it in words
autodoc_default_options = {"members": True, "show-inheritance": True}

CONTENTS = {
    "Tutorial": ["tutorial/first-process", "tutorial/first-queue", "tutorial/first-pool"],
    "How to": ["how-to/*"],
    "Reference": ["reference/*"],
    "Explanation": ["explanation/*"],
}


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    if page == app.config.root_doc:
        for caption, pages in CONTENTS.items():
            lines = [":hidden:", ":glob:", f":caption: {caption}", "", *pages]
            source[0] += "\n".join(["", "```{toctree}", *lines, "```", ""])


def setup(app: Sphinx) -> None:
    """Have Sphinx call what is defined here."""
    app.connect("source-read", _add_contents)
