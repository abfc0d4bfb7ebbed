"""Notebooks that are the same each time: stripped, tidied, with one line of progress."""

import ast
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ancer.registry import closest

if TYPE_CHECKING:  # a second, for what keeps progress alone
    from nbformat import NotebookNode

T = TypeVar("T")
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    # nbconvert --to script asks for the last two
    "language_info": {
        "name": "python",
        "file_extension": ".py",
        "nbconvert_exporter": "python",
    },
}


def tidy(notebook: dict[str, Any]) -> None:
    """Drop what changes from run to run or machine to machine: times, random ids, versions."""
    notebook["metadata"] = METADATA
    notebook["nbformat"] = 4
    notebook["nbformat_minor"] = 5
    for position, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{position}"
        tags = cell["metadata"].get("tags", [])
        cell["metadata"] = {"tags": tags} if tags else {}


def stripped_text(text: str) -> str:
    """A notebook's file as committed: no outputs, no counts, no metadata but tags, ids by position.

    Raises ValueError for what is no notebook of format 4.
    """
    # as JSON: git's filter is a process a notebook, and nbformat takes two seconds to load
    notebook = json.loads(text)
    if notebook.get("nbformat") != 4:
        raise ValueError("no notebook of format 4: open it in JupyterLab and save it")
    tidy(notebook)
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell["outputs"] = []
            cell["execution_count"] = None
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def strip_file(path: Path) -> bool:
    """Strip a notebook's file; whether that changed it."""
    before = path.read_text()
    after = stripped_text(before)
    if after != before:
        path.write_text(after)
    return after != before


def progress(
    finished: Iterable[T],
    what: str,
    total: int,
    images: Callable[[T], int] = len,  # type: ignore[assignment]
    dashboard: str = "",
) -> Iterator[T]:
    """Yield each item and keep one line: images done, rate, time left, and where to see more.

    total: images in all; images: how many of them an item is. The last line says how long it took,
    which `repeatable` takes out.
    """
    done = 0
    start = time.perf_counter()
    for item in finished:
        yield item
        done += images(item)
        rate = done / (time.perf_counter() - start)
        if done < total:
            left = f"{(total - done) / rate:.0f} s left"
            if dashboard:
                left += f", dashboard: {dashboard}"
            _say(f"{what}: {done} of {total} images, {rate:.1f} a second, {left}")
    _say(f"{what}: done{_took(done, 'images', time.perf_counter() - start)}")


def report_epochs(epochs: int, losses: list[float]) -> Callable[[int, float], None]:
    """A `progress` for `train` that appends each epoch's loss to `losses` and keeps one line."""
    start = time.perf_counter()

    def report(epoch: int, loss: float) -> None:
        losses.append(loss)
        left = (time.perf_counter() - start) / epoch * (epochs - epoch)
        if epoch < epochs:
            _say(f"epoch {epoch} of {epochs}: loss {loss:.3f}, {left:.0f} s left")
        else:
            _say(f"train: done{_took(epochs, 'epochs', time.perf_counter() - start)}")

    return report


def _took(done: int, of: str, seconds: float) -> str:
    """How long all took, for the last line of progress."""
    return f", {done} {of} in {seconds:.0f} s, {done / seconds:.1f} a second"


def repeatable(notebook: "NotebookNode") -> "NotebookNode":
    """An executed notebook as the pipeline keeps it: the same each time, without links onwards."""
    notebook.cells = [
        cell for cell in notebook.cells if "remove-cell" not in cell.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = re.sub(r": done, \d+ \w+ in .*", ": done", output.text)
    tidy(notebook)
    return notebook


def _say(line: str) -> None:
    """Replace what a cell shows (tqdm and rich leave dead widgets in executed notebooks)."""
    from IPython.display import clear_output

    clear_output(wait=True)
    print(line)


def chunked(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """`items` in consecutive chunks of at most `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def check_injected() -> None:
    """Raise ValueError for a parameter of papermill that this notebook does not have.

    papermill puts what it is given in a cell of its own behind the notebook's cell of parameters.
    """
    if "IPython" not in sys.modules:
        return
    shell = sys.modules["IPython"].get_ipython()
    if shell is None:
        return
    for before, cell in pairwise(shell.user_ns.get("In", [])):
        if cell.startswith("# Parameters\n"):
            known = _assigned(before)
            for name in _assigned(cell):
                if name not in known:
                    raise ValueError(
                        f"this notebook has no parameter {name!r}: {closest(name, known)}"
                    )


def _assigned(cell: str) -> list[str]:
    """The names that a cell assigns."""
    found = []
    for node in ast.parse(cell).body:
        for target in getattr(node, "targets", ()):
            if isinstance(node, ast.Assign) and isinstance(target, ast.Name):
                found.append(target.id)
    return found
