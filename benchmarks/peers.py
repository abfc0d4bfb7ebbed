"""Published code to compare with, as it is on the package index, in a folder of its own.

ancer-python's import package is also called `ancer`, so it must not be installed beside this one.
"""

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import scipy.stats

FOLDER = Path(__file__).parents[1] / ".build" / "peers"
PACKAGES = [
    "ancer-python==1.0.0",
    "ddsmoothing-python==1.0.0",
    "adversarial-robustness-toolbox==1.20.1",
]
NEEDED = ["statsmodels", "patsy", "tqdm"]  # what they import beyond our own dependencies


@functools.cache
def load():
    """The published ancer and ddsmoothing packages and ART's PyTorchRandomizedSmoothing.

    Installs them if needed.
    """
    if not FOLDER.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER)]
        subprocess.run([*pip, *PACKAGES, *NEEDED], check=True)
    sys.path.append(str(FOLDER))
    scipy.stats.binom_test = (
        None  # imported by ddsmoothing for `predict` alone, and gone from SciPy
    )
    spec = importlib.util.spec_from_file_location("published_ancer", FOLDER / "ancer/__init__.py")
    published = importlib.util.module_from_spec(spec)
    sys.modules["published_ancer"] = published
    spec.loader.exec_module(published)
    import ddsmoothing.smooth
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    return published, ddsmoothing, PyTorchRandomizedSmoothing
