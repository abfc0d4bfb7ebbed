"""The pipeline's stages on small profiles, for tests."""

from pathlib import Path

import papermill
import yaml

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / ".build/screenshots"  # of tests/browser
EXPERIMENTS = ("digits-l2-0.25", "digits-l1-0.25")
STAGES = ("train", "optimize", "certify", "memory")  # of each experiment
LAST = ("volumes", "tables", "statistics", "ablations", "figures")


def small(folder: Path, experiments=EXPERIMENTS) -> Path:
    """`folder` with a small params.yaml: six images, few draws."""
    p = yaml.safe_load((ROOT / "params.yaml").read_text())
    p["images"], p["toy"]["epochs"], p["toy"]["n"], p["figures"]["images"] = 6, 5, 500, 3
    p["toy"]["crowd"] = 12
    p["train"] = {name: {**recipe, "epochs": 8} for name, recipe in p["train"].items()}
    p["optimize"]["iterations"], p["optimize"]["search_draws"] = 3, 50
    p["certify"]["n"] = 500
    p["statistics"] = {"horizon": 500, "images": 2, "n": 500}
    p["ablations"] |= {"images": 3, "n": 200, "settings": [{"iterations": 2, "draws": 10}, {"kappa": 0.0, "draws": 2}]}
    published = {"norm": 2, "training": "augmentation", "sigma": 0.25, "source": "x", "accuracy": {0: 0.5}, "ACR": 0.1}
    p["published"] = [published]
    p["experiments"] = {name: p["experiments"][name] for name in experiments}
    (folder / "params.yaml").write_text(yaml.safe_dump(p))
    return folder


def run(profile: Path, name: str, **parameters) -> Path:
    """The executed notebook of a stage."""
    parameters = {**parameters, "profile": str(profile)}
    output = profile / "executed" / f"{name}-{parameters.get('experiment', '')}.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb", output, parameters, engine_name="ancer", progress_bar=False
    )
    return output
