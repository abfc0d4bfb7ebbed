"""The volumes stage: regions of two methods compared by volume and by inclusion."""

import math

import pandas as pd

from ancer._files import write_text
from ancer.regions.region import Region, superset
from ancer.workspace.experiment import Experiment, Profile


def compare_regions(profile: Profile) -> pd.DataFrame:
    """One row for each experiment, other method and image, written to results/volumes.csv.

    comparable: both methods certify the image for one class; superset: the region of `volumes.of`
    contains the other's; log_volume_gain: natural logarithm of its volume over the other's;
    in_box_log_volume_gain: of what lies inside the image box.
    """
    lines = []
    for experiment in profile.experiments.values():
        lines += _compared(experiment)
    volumes = pd.DataFrame(lines).astype({"superset": "Int64"})
    write_text(profile.target("volumes"), volumes.to_csv(index=False))
    profile.record("volumes")
    return volumes


def _compared(experiment: Experiment) -> list[dict]:
    section = experiment.parameters.volumes
    rows = experiment.rows(experiment.data)
    by_method = dict(list(rows.set_index("idx").groupby("method")))
    lines = []
    for against in section.against:
        both = [index for index in by_method[section.of].index if index in by_method[against].index]
        data = experiment.data.take(both)
        theta = experiment.theta(data, experiment.lattice)
        for k, index in enumerate(both):
            ours = by_method[section.of].loc[index]
            other = by_method[against].loc[index]
            comparable = ours["prediction"] == other["prediction"] != -1
            line = {
                "experiment": experiment.name,
                "against": against,
                "idx": index,
                "comparable": int(comparable),
            }
            if comparable:
                regions = []
                for name, row in ((section.of, ours), (against, other)):
                    axes = theta[name][k].double() * row["gap"]
                    basis = experiment.basis(name)
                    regions.append(Region(data.images[k], axes, experiment.norm, basis))
                line["superset"] = int(superset(*regions))
                line["log_volume_gain"] = ours["log_volume"] - other["log_volume"]
                ratio = ours["in_box_proxy_radius"] / other["in_box_proxy_radius"]
                line["in_box_log_volume_gain"] = regions[0].n * math.log(ratio)
            lines.append(line)
    return lines
