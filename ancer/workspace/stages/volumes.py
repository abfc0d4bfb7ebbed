"""The volumes stage: regions of two methods compared by volume and by inclusion."""

import pandas as pd

from ancer._files import write_text
from ancer.regions.region import Region, superset
from ancer.workspace.experiment import Experiment, Profile


def compare_regions(profile: Profile) -> pd.DataFrame:
    """One row for each experiment, other method and image, written to results/volumes.csv.

    comparable: both methods certify the image for one class; superset: the region of `volumes.of`
    contains the other's; log_volume_gain: natural logarithm of its volume over the other's.
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
    indices = by_method[section.of].index.tolist()
    data = experiment.data.take(indices)
    theta = experiment.theta(data, experiment.lattice)

    def region(name: str, k: int) -> Region:
        gap = by_method[name].loc[indices[k], "gap"]
        return Region(data.images[k], theta[name][k].double() * gap, experiment.norm)

    lines = []
    for against in section.against:
        for k, index in enumerate(indices):
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
                line["superset"] = int(superset(region(section.of, k), region(against, k)))
                line["log_volume_gain"] = ours["log_volume"] - other["log_volume"]
            lines.append(line)
    return lines
