"""The figures stage: which images are shown, and what their regions permit."""

import pandas as pd
import torch
from torch import Tensor

from ancer.datasets.dataset import Dataset
from ancer.streams import generator
from ancer.workspace.experiment import Experiment


def shown_images(experiment: Experiment, rows: pd.DataFrame) -> Dataset:
    """The images of F2 and F5: the first so many, those classified correctly before the others."""
    section = experiment.parameters.figures
    ours = rows[rows["method"] == section.region]
    ours = ours.sort_values("correct", ascending=False, kind="stable").head(section.images)
    return experiment.data.take(ours["idx"].tolist())


def equal_perturbations(
    experiment: Experiment, rows: pd.DataFrame, data: Dataset
) -> tuple[Tensor, Tensor]:
    """Images moved in one random direction, as far as two regions of one volume reach.

    The first has the ball's shape, the second that of the region; the size is the region's, so only
    the second is certified there.
    """
    section = experiment.parameters.figures
    law = experiment.law
    x = data.images
    per_image = (-1, *[1] * (x.dim() - 1))
    # 1. a direction of norm 1 for each image
    unit = type(law).from_sigma(1.0)
    directions = []
    for index in data.indices:
        stream = generator(experiment.parameters.seed, "predict", index, x.device)
        directions.append(unit.unit(x.shape[1:], generator=stream, dtype=x.dtype))
    direction = torch.stack(directions)
    direction /= direction.flatten(1).norm(p=law.norm, dim=1).reshape(per_image)
    # 2. the semi-axes, and the radius of the ball of their volume
    of_region = rows[rows["method"] == section.region].set_index("idx")
    gap = torch.tensor(of_region.loc[data.indices, "gap"].to_numpy(), dtype=x.dtype)
    theta = experiment.theta(data, experiment.lattice)[section.region]
    basis = experiment.basis(section.region)
    axes = theta * gap.reshape(per_image)
    proxy = axes.flatten(1).log().mean(dim=1).exp().reshape(per_image)
    return x + proxy * direction, x + basis.back(axes * direction).to(x.dtype)
