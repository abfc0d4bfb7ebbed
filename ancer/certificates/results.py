"""Certificates of the same images by several methods, beside each other."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ancer.certificates.many import Certificates

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

RUN = "run.json"  # what a folder of certificates is of


class Results(Mapping[str, Certificates]):
    """Certificates of the same images by several methods: results["mine"] are one method's.

    Args:
        certificates: by method.
        labels: the true classes, an int64 array; None where they are not known.

    Example:
        >>> found = Results({"none": Certificates(())})
        >>> list(found), len(found["none"])
        (['none'], 0)
    """

    def __init__(self, certificates: Mapping[str, Certificates], labels: np.ndarray | None = None):
        self._all = dict(certificates)
        self.labels = labels

    def __getitem__(self, method: str) -> Certificates:
        return self._all[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return "\n".join(f"{method}: {found!r}" for method, found in self.items())

    def _repr_html_(self) -> str:
        return self.summary().to_html(float_format="{:.4g}".format)

    def to_frame(self) -> "pd.DataFrame":
        """All rows of `Certificates.to_frame`, the method first."""
        import pandas as pd

        frames = {method: found.to_frame(self.labels) for method, found in self.items()}
        return pd.concat(frames, names=["method"]).reset_index("method").reset_index(drop=True)

    def summary(self) -> "pd.DataFrame":
        """Headline numbers (`Certificates.summary`), a row a method."""
        import pandas as pd

        return pd.DataFrame({m: found.summary(self.labels) for m, found in self.items()}).T

    def plot(self, *, by: str = "radius", ax: "Axes | None" = None) -> "Axes":
        """Certified accuracy curves of all methods; ValueError where labels are not known."""
        if self.labels is None:
            raise ValueError("certified accuracy needs labels: give them to `evaluate`")
        for method, found in self.items():
            ax = found.plot(self.labels, by=by, ax=ax, label=method)
        assert ax is not None  # there is a method
        ax.legend()
        return ax

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """What all methods of `evaluate` have finished in a folder.

        FileNotFoundError where there is nothing.
        """
        path = Path(folder) / RUN
        if not path.is_file():
            raise FileNotFoundError(f"no run at {path}: give the folder `out` of evaluate")
        run = json.loads(path.read_text())
        parts: dict[str, list[Certificates]] = defaultdict(list)
        for first in range(0, len(run["indices"]), run["chunk"]):
            try:
                for method in run["methods"]:
                    parts[method].append(Certificates.load(path.parent / method / f"{first:08d}"))
            except FileNotFoundError:
                break
        finished = min(len(parts[method]) for method in run["methods"])
        if finished == 0:
            raise FileNotFoundError(f"nothing is finished at {path}: run evaluate on with it")
        found = {}
        for method, those in parts.items():
            found[method] = joined(those[:finished])
        labels = run["labels"]
        return cls(found, None if labels is None else np.array(labels[: finished * run["chunk"]]))


def joined(parts: Iterable[Certificates]) -> Certificates:
    """Parts of one method, one after the other."""
    return Certificates(chain.from_iterable(parts))
