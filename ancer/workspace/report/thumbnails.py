"""Small pictures of the images, for the report's rows."""

import base64
import io

import numpy as np
from PIL import Image

from ancer.workspace.experiment import Experiment
from ancer.workspace.figures.style import pictures

SIDE = 32  # pixels, at most


def thumbnails(experiment: Experiment) -> dict[int, str]:
    """Links that hold a small picture of each test image, by its number; none without the data."""
    try:
        data = experiment.data
    except FileNotFoundError:
        return {}
    found = {}
    for index, values in zip(data.indices, pictures(data.images), strict=True):
        picture = Image.fromarray((255 * values).round().astype(np.uint8))
        picture.thumbnail((SIDE, SIDE))
        png = io.BytesIO()
        picture.save(png, format="PNG")
        found[index] = embedded(png.getvalue())
    return found


def embedded(png: bytes) -> str:
    """A picture as a link that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
