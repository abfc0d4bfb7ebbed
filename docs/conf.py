"""The documentation as pages: `make docs`, from Markdown and notebooks of the whole project.

The project's folder is the source, so that all links between docs, notebooks and results are those
that a reader of the repository follows too.
"""

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from ancer import __version__

# stages' code imports the packages beside it
sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"

project = "ancer"
author = "the authors of ancer"
release = __version__
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/quickstart.ipynb",
    "results/notebooks/*.ipynb",
    "benchmarks/README.md",
    "data/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = ["docs/README.md"]  # the list for readers of the repository

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# executed notebooks keep their outputs; the quickstart is committed without and runs here
nb_execution_mode = "auto"
nb_execution_excludepatterns = ["results/notebooks/*"]
nb_execution_raise_on_error = True
nb_execution_timeout = 600
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = ["Guarantee"]
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"ancer {release}"
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"


def visit_formula(translator, node: nodes.math) -> None:
    """A formula as MathML, which browsers draw without a script or a network."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def escape_formulas(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings write theta * z and |x|: no emphasis and no substitution."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            line = re.sub(r"(\*\w[^*]*\w\*)|\*", lambda found: found[1] or r"\*", line)
            lines[number] = line.replace("|", r"\|")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape_formulas)
    app.add_html_math_renderer("mathml", (visit_formula, None), (visit_formula, None))
