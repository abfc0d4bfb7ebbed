"""How tables are written: in full precision, and rounded so that no number claims too much."""

from collections.abc import Hashable, Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

from ancer._files import write_text

# what a line is, or of what more is not better
NO_SCORES = ("method", "images", "abstained", "fallback share", "draws")


def round_down(value: object, digits: int = 3) -> object:
    """A float as text with `digits` decimals, never above the value; nothing for NaN.

    Other objects as they are.

    Example:
        >>> round_down(0.9996)
        '0.999'
    """
    return _rounded(value, digits, ROUND_FLOOR)


def round_up(value: object, digits: int = 3) -> object:
    """Likewise, never below the value: the upper end of an interval."""
    return _rounded(value, digits, ROUND_CEILING)


def _rounded(value: object, digits: int, rounding: str) -> object:
    if value is pd.NA:
        return ""
    if not isinstance(value, float) or np.isinf(value):
        return value
    if np.isnan(value):
        return ""
    exact = Decimal(repr(float(value)))
    return str(exact.quantize(Decimal(1).scaleb(-digits), rounding=rounding))


def write_table(
    table: pd.DataFrame,
    path: Path,
    *,
    digits: int = 3,
    note: str = "",
    shown: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Write path.csv in full precision, path.md and path.tex rounded down; returns that table.

    note: a sentence under it; shown: what they show where it is not the columns of the CSV.
    """
    if shown is None:
        shown = table
    rounded = shown.copy().astype(object)
    align = []
    for column in shown.columns:
        if column == "sigma":  # a parameter, not a result
            rounded[column] = shown[column].map("{:g}".format)
        else:
            rounded[column] = [round_down(value, digits) for value in shown[column]]
        align.append("right" if shown[column].dtype.kind in "if" else "left")
    markdown = rounded.to_markdown(index=False, disable_numparse=True, colalign=align)
    styled = rounded.style.hide(axis="index").format(escape="latex")
    columns = "".join(side[0] for side in align)
    write_text(path.with_name(f"{path.name}.csv"), table.to_csv(index=False))
    latex = styled.to_latex(column_format=columns, hrules=True)
    if note:
        markdown += f"\n\n{note}"
        latex += f"\\par {note}\n"
    write_text(path.with_name(f"{path.name}.md"), markdown + "\n")
    write_text(path.with_name(f"{path.name}.tex"), latex)
    return rounded


def best_cells(table: pd.DataFrame) -> set[tuple[Hashable, str]]:
    """Where a number of a table is the largest of its column, among methods on the same images."""
    found = set()
    keys = present(table, ("experiment", "training", "sigma", "answer"))
    for _, lines in table.groupby(keys or np.zeros(len(table)), dropna=False):
        comparable = lines[lines["images"] == lines["images"].max()]
        for column in lines.columns.difference([*keys, *NO_SCORES]):
            values = comparable[column]
            if values.nunique() > 1:
                for k in values.index[values == values.max()]:
                    found.add((k, column))
    return found


def present(table: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Those that are columns of a table."""
    return [name for name in names if name in table]


def shown(table: pd.DataFrame, name: str) -> HTML:
    """A table as a notebook shows it: rounded down; the best bold, where it tells the images.

    name: of this table in the page, whose style tells tables apart by it.
    """
    best = best_cells(table) if "images" in table else set()

    def weights(column: pd.Series) -> list[str]:
        return ["font-weight: bold" if (k, column.name) in best else "" for k in column.index]

    return HTML(Styler(table, uuid=name).format(round_down).apply(weights).to_html())
