"""Certified robustness by anisotropic randomized smoothing (ANCER, Eiras et al., TMLR 2022)."""

from importlib import import_module

_ROOMS = {
    "noise": ["GaussianNoise", "UniformNoise"],
    "regions": ["Region", "superset"],
    "datasets": ["Dataset"],
    "networks": [],
    "models": ["Classifier"],
    "checkpoints": [],
    "smoothing": ["SmoothedClassifier"],
    "schemes": [],
    "training": ["train"],
    "optimization": [
        "optimize_anisotropic",
        "optimize_anisotropic_paper",
        "optimize_isotropic",
        "optimize_isotropic_paper",
    ],
    "stopping": ["Hopeless", "Improvement", "Target"],
    "certification": ["ABSTAIN", "Certificate", "certify", "predict"],
    "best": ["Best", "certify_best"],
    "memory": ["Answer", "Memory"],
    "store": [],
    "rows": [],
    "tasks": [],
    "workers": [],
    "results": [],
    "captions": [],
    "plots": [],
    "pipeline": [],
    "report": [],
    "probe": [],
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted([*_HOMES, *_ROOMS])


def __getattr__(name):
    """Import a room when one of its names is first used: a stage pays only for what it needs."""
    if name in _ROOMS:
        return import_module(f"ancer.{name}")
    if name in _HOMES:
        return getattr(import_module(f"ancer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ancer' has no attribute {name!r}")


def __dir__():
    return [*__all__, "__version__"]
