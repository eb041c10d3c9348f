"""Settings of the documentation; `make docs` makes every warning an error and needs no network."""

import importlib.metadata
import re

project = "phasescope"
author = "phasescope authors"
copyright = "2026, phasescope authors"
version = release = importlib.metadata.version("phasescope")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "phasescope"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Single backticks in docstrings mark code.
default_role = "literal"


def _math_role(app, what, name, obj, options, lines):
    """Docstrings write maths as `$x$`, which reStructuredText does not know."""
    text = re.sub(r"(?<![\\$])\$([^$]+)\$(?!\$)", r":math:`\1`", "\n".join(lines))
    lines[:] = text.split("\n")


def setup(app):
    """Connect what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", _math_role)
