"""The pipeline's stages on small profiles, for tests."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import papermill
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
ANCER = str(Path(sys.executable).with_name("ancer"))  # the command
PICTURES = ROOT / ".build/screenshots"  # of tests/browser
EXPERIMENTS = ("digits-l2-025", "digits-l1-025")
STAGES = ("train", "optimize", "certify", "memory")  # of each experiment
# of no stage, run in a browser: tests/browser
FOR_PEOPLE = {"bases", "explore", "index", "quickstart", "report"}
LAST = ("volumes", "tables", "coverage", "statistics", "ablations", "figures")


def read_yaml(path: Path) -> Any:
    """A YAML file as the workspace and DVC read it."""
    return YAML(typ="safe").load(path)


def write_yaml(path: Path, values: Any) -> None:
    """Write a YAML file without anchors, its keys in their order."""
    yaml = YAML(typ="safe")
    yaml.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(values, path)


def parameters(profile: Path = ROOT) -> dict[str, Any]:
    """What stands in a profile's params.yaml."""
    return read_yaml(profile / "params.yaml")


def write_parameters(folder: Path, values: Any) -> Path:
    """The folder, with these as its params.yaml."""
    write_yaml(folder / "params.yaml", values)
    return folder


def small(folder: Path, experiments: Sequence[str] = EXPERIMENTS) -> Path:
    """`folder` with a small params.yaml: six images, few draws."""
    p = parameters()
    p["images"] = 6
    p["figures"]["images"] = 3
    p["toy"] |= {"epochs": 5, "n": 500, "crowd": 12}
    for recipe in p["train"].values():
        recipe["epochs"] = 8
    p["methods"]["isotropic"]["draws"] = 50
    p["methods"]["anisotropic"] |= {"iterations": 3, "search_draws": 50}
    p["methods"]["one-theta"] |= {"fit": 30, "epochs": 1}
    for paper in ("isotropic-paper", "anisotropic-paper"):
        p["methods"][paper] |= {"images": 2, "iterations": 3, "draws": 10}
    p["certify"]["n"] = 500
    p["coverage"] |= {"images": 2, "n": 20}
    p["statistics"] |= {"horizon": 500, "images": 2, "n": 500}
    settings = [{"draws": 10, "iterations": 2}, {"draws": 2, "kappa": 0.0}]
    p["ablations"] |= {"images": 3, "n": 200, "settings": settings}
    published = {
        "norm": 2,
        "training": "augmentation",
        "sigma": 0.25,
        "source": "x",
        "accuracy": {0: 0.5},
        "ACR": 0.1,
    }
    p["published"] = [published]
    p["experiments"] = {name: p["experiments"][name] for name in experiments}
    return write_parameters(folder, p)


def compute(profile: Path, name: str, **given: Any) -> None:
    """Run the cells of a stage's notebook here: a kernel has to import everything anew."""
    matplotlib.use("agg")
    names = {"__name__": "__main__"}
    for cell in json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names |= {"profile": str(profile), "output": "results", **given}


def run(profile: Path, name: str, **given: Any) -> Path:
    """The executed notebook of a stage."""
    given = {**given, "profile": str(profile)}
    output = profile / "executed" / f"{name}-{given.get('experiment', '')}.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb",
        output,
        given,
        engine_name="ancer",
        progress_bar=False,
    )
    return output
