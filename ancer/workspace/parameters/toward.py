"""The perturbations that params.yaml names: apart, since no other stage depends on their code."""

from ancer.perturbations.shares import perturbations_of
from ancer.workspace.parameters.models import Parameters
from ancer.workspace.parameters.options import named


def check_toward(parameters: Parameters) -> None:
    """Raise ValueError for a family or severity that `toward` of a method cannot have."""
    places = {f"methods.{name}": method.options for name, method in parameters.methods.items()}
    for position, setting in enumerate(parameters.ablations.settings):
        places[f"ablations.settings.{position}"] = setting
    for name, experiment in parameters.experiments.items():
        for method, options in experiment.method_options.items():
            places[f"experiments.{name}.method_options.{method}"] = options
    for where, options in places.items():
        with named(f"{where}.toward"):
            perturbations_of(options.get("toward") or {})
