"""Pieces of the report's pages: Markdown, formulas, notebooks and tables as HTML."""

import html
import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, PackageLoader
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from ancer.workspace.tables.writing import present

TEMPLATES = Environment(
    loader=PackageLoader("ancer.workspace.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
Links = Mapping[tuple[int, str], str]  # of cells: position of the line, column
Column = tuple[str, bool]  # name, whether of words
Line = list[tuple[Any, str | None, bool]]  # text, link, whether it is best


class _Renderer(IPythonRenderer):
    """nbconvert's, with formulas as MathML, which browsers draw by themselves."""

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<div class="scroll">{_formula(body, "block")}</div>'


def _formula(tex: str, display: str) -> str:
    """MathML, without \\big and the like.

    latex2mathml writes their sizes in an order that differs from run to run.
    """
    return convert(re.sub(r"\\[bB]igg?[lr]?(?![a-zA-Z])", "", tex), display=display)


def markdown(source: str) -> Markup:
    """Markdown as HTML, its formulas as MathML; HTML in it is shown as text."""
    return Markup(MarkdownWithMath(renderer=_Renderer(escape=True)).render(source))


def inline(source: str) -> Markup:
    """One paragraph of Markdown, without the paragraph."""
    return Markup(markdown(source).strip().removeprefix("<p>").removesuffix("</p>"))


def stylesheet() -> Markup:
    """The style of all pages and of the code in them, light and dark."""
    ours = (Path(__file__).parent / "templates/style.css").read_text()
    code = HtmlFormatter().get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return Markup(f"{ours}\n{code}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n")


def script() -> Markup:
    """What sorts and filters tables; pages can be read without it."""
    return Markup((Path(__file__).parent / "templates/sort.js").read_text())


def notebook_page(path: Path) -> tuple[str, Markup]:
    """Title and body of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    title, _, notebook.cells[0].source = notebook.cells[0].source.partition("\n")
    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True
    )
    exporter.exclude_anchor_links = True
    exporter.register_filter("markdown2html", markdown)
    body, _ = exporter.from_notebook_node(notebook)
    return title.removeprefix("# "), Markup(body)


def cells(
    table: pd.DataFrame, links: Links | None = None, best: Collection[tuple[Hashable, str]] = ()
) -> dict[str, Any]:
    """A table for the template.

    `columns` as (name, whether of words), `lines` of (text, link or None, whether it is best).
    """
    columns = []
    for column in table.columns:
        numbers = pd.to_numeric(table[column], errors="coerce")
        columns.append((column, not numbers.notna().any()))
    lines = []
    for k, line in table.reset_index(drop=True).iterrows():
        shown = []
        for column, value in line.items():
            text = "" if value != value else value  # nothing for NaN
            shown.append((text, (links or {}).get((k, column)), (k, column) in best))
        lines.append(shown)
    return {"columns": columns, "lines": lines}


def without_constants(
    columns: Sequence[Column], lines: Sequence[Line], names: Collection[str]
) -> tuple[list[Column], list[Line], str]:
    """A table's columns and lines without those of `names` that say the same in all lines.

    Beside them what they say.
    """
    kept = []
    said = []
    for k, (name, _) in enumerate(columns):
        texts = {str(line[k][0]) for line in lines}
        constant = name in names and len(texts) == 1
        if constant:
            said.append(f"{name}: {texts.pop()}")
        kept.append(not constant)
    shorter = [list(compress(line, kept)) for line in lines]
    return list(compress(columns, kept)), shorter, ", ".join(said)


def texts_of(lines: Iterable[Line]) -> set[tuple]:
    """What the lines of a table say."""
    found = set()
    for line in lines:
        found.add(tuple(text for text, _, _ in line))
    return found


def with_gain(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the column "ACR gain": ACR above that of the first method on the same images."""
    keys = present(table, ("training", "sigma"))
    gains = pd.Series(float("nan"), index=table.index)
    for _, lines in table.groupby(keys, dropna=False):
        first = lines.iloc[0]
        others = lines.index[lines["images"] == first["images"]][1:]
        gains[others] = table.loc[others, "ACR"] - first["ACR"]
    table = table.copy()
    table.insert(table.columns.get_loc("ACR") + 1, "ACR gain", gains)
    return table


def framed(path: Path) -> HTML:
    """A page that needs no other, in a frame of its own in a notebook."""
    page = html.escape(path.read_text())
    style = "width: 100%; height: 60em; border: 0"
    return HTML(f'<div><iframe srcdoc="{page}" style="{style}"></iframe></div>')


def lines_of_images(rows: pd.DataFrame) -> dict[str, Any]:
    """Rows for the template: each image's number first, with its picture, floats to six digits."""
    shown = rows.map(_six_digits)
    shown.insert(0, "idx", shown.pop("idx").map(_pictured))
    return cells(shown)


def _pictured(index: int) -> Markup:
    """An image's number beside its picture, which the page's style has."""
    return Markup('<span class="picture picture-{0}"></span>{0}').format(index)


def _six_digits(value: object) -> object:
    """A float with six digits, anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else value
