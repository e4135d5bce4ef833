"""How the documentation is built: `make docs`, or `python -m sphinx -n -W --keep-going docs build/docs`.

Nothing is fetched while it is built or read: no inventory of other projects, no fonts, no scripts of other hosts. The
pages of the reference are written into `docs/reference` by `_extensions/reference.py` and are not kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import fm_science

project = "fm-science"
author = "The fm-science authors"
copyright = "the fm-science authors, MIT licence"
version = release = fm_science.__version__

extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.viewcode", "myst_parser", "docstrings", "reference",
]  # fmt: skip
exclude_patterns = ["_build", "_extensions", "_static"]

# guides
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
smartquotes_action = "D"  # dashes
highlight_language = "text"

# docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

# look
html_theme = "furo"
html_title = f"fm-science {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "navigation_with_keys": True,
    "top_of_page_buttons": [],
    "light_css_variables": {"code-font-size": "78%"},
}
