"""The figures stage: which images are shown, and what their regions permit."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ancer.datasets.dataset import Dataset
from ancer.regions.region import ABSTAIN
from ancer.streams import generator
from ancer.workspace.experiment import Experiment
from ancer.workspace.figures.style import pictures


def shown_images(experiment: Experiment, rows: pd.DataFrame) -> Dataset:
    """The images of F2 and F5: the first so many, those classified correctly before the others."""
    section = experiment.parameters.figures
    ours = rows[rows["method"] == section.region]
    ours = ours.sort_values("correct", ascending=False, kind="stable").head(section.images)
    return experiment.data.take(ours["idx"].tolist())


def regions_shown(
    experiment: Experiment, rows: pd.DataFrame, *, certified: int = 5, abstained: int = 2
) -> tuple[np.ndarray, list[np.ndarray | None], list[str]]:
    """Images from the largest radius to the smallest, then some that abstain; edges; titles.

    rows: of one method. Pictures (M, H, W[, 3]); an edge is the image moved in a random direction
    to where its region ends, None where it abstains.
    """
    # 1. which images
    in_order = rows.sort_values("radius", ascending=False, kind="stable")
    positive = in_order[in_order["radius"] > 0]
    places = torch.linspace(0, len(positive) - 1, min(certified, len(positive))).round().int()
    chosen = positive.iloc[places.tolist()]
    shown = pd.concat([chosen, in_order[in_order["radius"] <= 0].head(abstained)])
    data = experiment.data.take(shown["idx"].tolist())
    # 2. where their regions end; of the best of several, that of the candidate it took
    theta = experiment.theta(data, experiment.lattice)
    directions = _directions(experiment, data)
    edges: list[np.ndarray | None] = []
    titles = []
    for k, row in enumerate(shown.to_dict("records")):
        titles.append(_title(row, data.classes))
        if row["radius"] <= 0:
            edges.append(None)
            continue
        x = data.images[k : k + 1]
        axes = row["gap"] * theta[row["candidate"]][k : k + 1]
        moved = experiment.basis(row["candidate"]).back(axes * directions[k : k + 1])
        edges.append(pictures((x + moved).to(x.dtype))[0])
    return pictures(data.images), edges, titles


def _title(row: Mapping[Hashable, Any], classes: Sequence[str]) -> str:
    """The class of a row's image, what is answered instead, and the radius."""
    title = classes[row["label"]]
    if row["prediction"] == ABSTAIN:
        title += ", abstains"
    elif not row["correct"]:
        title += f", not {classes[row['prediction']]}"
    if row["radius"] > 0:
        title += f"\nradius {row['radius']:.2f}"
    return title


def equal_perturbations(
    experiment: Experiment, rows: pd.DataFrame, data: Dataset
) -> tuple[Tensor, Tensor]:
    """Images moved in one random direction, as far as two regions of one volume reach.

    The first has the ball's shape, the second that of the region; the size is the region's, so only
    the second is certified there.
    """
    x = data.images
    region = experiment.parameters.figures.region
    direction = _directions(experiment, data)
    of_region = rows[rows["method"] == region].set_index("idx")
    gap = torch.tensor(of_region.loc[data.indices, "gap"].to_numpy(), dtype=x.dtype)
    axes = experiment.theta(data, experiment.lattice)[region] * _per_image(gap, x)
    # the radius of the ball of their volume
    proxy = _per_image(axes.flatten(1).log().mean(dim=1).exp(), x)
    return x + proxy * direction, x + experiment.basis(region).back(axes * direction).to(x.dtype)


def _directions(experiment: Experiment, data: Dataset) -> Tensor:
    """A random direction of norm 1 for each image: like data.images."""
    x = data.images
    unit = type(experiment.law).from_sigma(1.0)
    directions = []
    for index in data.indices:
        stream = generator(experiment.parameters.seed, "predict", index, x.device)
        directions.append(unit.unit(x.shape[1:], generator=stream, dtype=x.dtype))
    direction = torch.stack(directions)
    return direction / _per_image(direction.flatten(1).norm(p=experiment.norm, dim=1), x)


def _per_image(values: Tensor, x: Tensor) -> Tensor:
    """Values (B,) that multiply images x (B, ...)."""
    return values.reshape(-1, *[1] * (x.dim() - 1))
