"""What DVC and the notebooks need: a profile's parameters, stripped notebooks, progress lines."""

import difflib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import nbformat
import yaml

# What params.yaml may hold: one section a stage, and the type of each value. Nothing has a default here:
# a parameter is written once, in params.yaml.
SCHEMA = {
    "root": str,
    "seed": int,
    "images": int,
    "every": int,
    "cluster": dict,
    "tasks": {"optimize": int, "certify": int},
    "evaluate": {"batch_size": int, "dtype": str, "memory_format": str, "fold": bool},
    "toy": {"sigma": float, "epochs": int, "batch_size": int, "lr": float, "points": list, "crowd": int, "n": int},
    "train": dict,
    "optimize": {
        "search_draws": int,
        "iterations": int,
        "draws": int,
        "step": float,
        "kappa": float,
        "outside": float,
        "window": int,
        "enlarge": float,
        "tolerance": float,
    },
    "certify": {"methods": list, "n0": int, "n": int, "alpha": float, "exact": bool, "shares": dict},
    "memory": {"methods": list},
    "volumes": {"against": list},
    "tables": {"radii": list},
    "figures": {"images": int},
    "statistics": {"horizon": int, "images": int, "n": int},
    "ablations": {"experiments": list, "images": int, "n": int, "start": str, "settings": list},
    "published": list,
}
RECIPE = {
    "scheme": str,
    "epochs": int,
    "every": int,
    "batch_size": int,
    "optimizer": str,
    "schedule": str,
    "lr": float,
    "weight_decay": float,
    "crop": int,
    "flip": bool,
    "dtype": str,
    "memory_format": str,
}
READY = {"scheme": str, "source": str}  # scheme "published": a checkpoint of others, read instead of trained
EXPERIMENT = {
    "dataset": str,
    "arch": str,
    "noise": str,
    "sigma": float,
    "training": str,
    "options": dict,
    "temperature": float,
}
PUBLISHED = {"norm": int, "training": str, "sigma": float, "source": str, "accuracy": dict, "ACR": float}


def load_parameters(
    experiment: str | None = None, *, profile: str | Path | None = None, **overrides: int | None
) -> SimpleNamespace:
    """The parameters of a profile, checked: sections as attributes, `experiments` as a dictionary.

    profile: a folder with params.yaml, or None for the nearest one at or above the working directory. experiment:
    a key of `experiments`, then `.experiment` holds its values, its name and its recipe, the section of `train` that
    `training` names. Top-level keys that begin with "x-" are parts to build others from, by YAML's anchors and merges,
    and mean nothing by themselves. overrides: replace a top-level value (images) or `n` of certification where not
    None; results then go to a trial folder, never among the profile's. `.folder` is the profile's folder, `.output`
    where to write. Raises FileNotFoundError, KeyError or ValueError naming what is wrong.
    """
    folder = _profile_folder(profile)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values = {name: value for name, value in values.items() if not str(name).startswith("x-")}
    experiments = values.pop("experiments", {})
    values["cluster"] = {} if values.get("cluster") is None else values["cluster"]  # nothing means this process
    _check(values, SCHEMA, "params.yaml")
    for stage, count in values["tasks"].items():
        if count < 1:
            raise ValueError(f"params.yaml: tasks: {stage} must be at least 1, found {count}")
    for name, recipe in values["train"].items():
        recipe = recipe or {}
        _check(recipe, READY if recipe.get("scheme") == "published" else RECIPE, f"params.yaml: train: {name}")
    for item in values["published"]:
        _check(item, PUBLISHED, "params.yaml: published")
    for name, item in experiments.items():
        _check(item, EXPERIMENT, f"params.yaml: experiments: {name}")
        if item["training"] not in values["train"]:
            found, known = item["training"], ", ".join(values["train"])
            raise ValueError(f"params.yaml: experiments: {name}: no recipe {found!r} in train: it has {known}")
        if values["train"][item["training"]]["scheme"] == "published" and "file" not in item["options"]:
            raise ValueError(f"params.yaml: experiments: {name}: options must name a published checkpoint's file")
    parameters = SimpleNamespace(
        **{k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in values.items()},
        experiments={
            name: SimpleNamespace(name=name, recipe=values["train"][item["training"]], **item)
            for name, item in experiments.items()
        },
        folder=folder,
        output=folder,
    )
    given = {name: value for name, value in overrides.items() if value is not None}
    if given:
        parameters.output = folder / ".build" / "trial"
        parameters.images = given.get("images", parameters.images)
        parameters.certify.n = given.get("n", parameters.certify.n)
    if experiment is not None:
        if experiment not in experiments:
            raise KeyError(f"unknown experiment {experiment!r}: params.yaml has {', '.join(experiments)}")
        parameters.experiment = parameters.experiments[experiment]
    return parameters


def _profile_folder(profile: str | Path | None) -> Path:
    if profile is not None:
        if not (Path(profile) / "params.yaml").is_file():
            raise FileNotFoundError(f"no params.yaml in profile folder {profile}")
        return Path(profile).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no params.yaml at or above {here}: run inside the project or give profile=<folder>")


def _check(values: dict, schema: dict, where: str) -> None:
    """Raise ValueError for a parameter that is unknown, missing or of the wrong type."""
    for name in values:
        if name not in schema:
            close = difflib.get_close_matches(str(name), schema, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(schema)}"
            raise ValueError(f"{where}: unknown parameter {name!r}: {hint}")
    for name, kind in schema.items():
        if name not in values:
            raise ValueError(f"{where}: parameter {name!r} is missing")
        value = values[name]
        if isinstance(kind, dict):
            _check(value if isinstance(value, dict) else {}, kind, f"{where}: {name}")
        elif not isinstance(value, (int, float) if kind is float else kind) or (
            isinstance(value, bool) and kind is not bool
        ):
            hint = " (write 0.001, not 1e-3)" if kind is float else ""
            raise ValueError(f"{where}: {name} must be of type {kind.__name__}, found {value!r}{hint}")


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as committed: no outputs, no counts, no metadata but tags, ids by position."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return tidy(notebook)


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what changes from run to run or from machine to machine: times, random ids, versions."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        cell.id = f"cell-{position}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
    return notebook


def progress(
    finished: Iterable, what: str, total: int, images: Callable[..., int] = len, dashboard: str = ""
) -> Iterator:
    """Yield each item and keep one line: images done, rate, time left, and where to see more; the last has no time.

    total: images in all; images: how many of them an item is.
    """
    from IPython.display import clear_output

    done, start = 0, time.perf_counter()
    for item in finished:
        yield item
        done += images(item)
        rate = done / (time.perf_counter() - start)
        clear_output(wait=True)
        if done < total:
            left = f"{(total - done) / rate:.0f} s left{f', dashboard: {dashboard}' if dashboard else ''}"
            print(f"{what}: {done} of {total} images, {rate:.1f} a second, {left}")
    clear_output(wait=True)
    print(f"{what}: done")


def epoch_reporter(epochs: int, losses: list[float]) -> Callable[[int, float], None]:
    """A `progress` for `training.train` that appends each epoch's loss to `losses` and keeps one line."""
    from IPython.display import clear_output

    start = time.perf_counter()

    def report(epoch: int, loss: float) -> None:
        losses.append(loss)
        left = (time.perf_counter() - start) / epoch * (epochs - epoch)
        clear_output(wait=True)
        print(f"epoch {epoch} of {epochs}: loss {loss:.3f}, {left:.0f} s left" if epoch < epochs else "train: done")

    return report


def chunked(items: Sequence, size: int) -> list[Sequence]:
    """`items` in consecutive chunks of at most `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def write_sources(notebooks: Iterable[Path], parameters: SimpleNamespace) -> None:
    """Write stripped notebooks and each experiment's own parameters into the profile's .build/.

    Stages depend on these: saving a notebook with outputs, or changing another experiment, re-runs nothing.
    (DVC cannot depend on experiments.<name> itself where the name holds a dot.)
    """
    build = parameters.folder / ".build"
    for folder in ("notebooks", "experiments"):
        (build / folder).mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        nbformat.write(strip(nbformat.read(path, as_version=4)), build / "notebooks" / path.name)
    for name, item in parameters.experiments.items():
        text = yaml.safe_dump(vars(item))
        (build / "experiments" / f"{name}.yaml").write_text(text)


if __name__ == "__main__":
    write_sources(sorted(Path(sys.argv[1]).glob("*.ipynb")), load_parameters())
