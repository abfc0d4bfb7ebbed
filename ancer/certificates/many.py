"""Certificates of several images: in numbers, as a table, as a curve, on the disk."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from torch import Tensor

from ancer._files import read_tensors, write_tensors, write_text
from ancer.bases.basis import PIXELS, Basis
from ancer.bases.named import basis_named
from ancer.certificates.certificate import Certificate
from ancer.classifier import Evaluation
from ancer.regions.region import ABSTAIN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Labels = Tensor | np.ndarray | Sequence[int]
FILE = "certificates.safetensors"
TABLE = "certificates.csv"
# fields of a certificate that are no tensors, as JSON holds them
PLAIN = (
    "index",
    "chosen",
    "prediction",
    "p_a_lower",
    "p_b_upper",
    "gap",
    "norm",
    "n",
    "alpha",
    "lattice",
)


class Certificates(Sequence[Certificate]):
    """What `certify` returns: a certificate an image, in their order.

    A sequence: `certificates[0]` is a `Certificate`, a slice or a sum are `Certificates`. Labels,
    where a method takes them, are the true classes, one an image: a tensor, array or list of whole
    numbers (ValueError for another number of them).

    Args:
        certificates: in the order of the images.

    Example:
        >>> found = ancer.certify(nn.Linear(2, 2), torch.rand(3, 2), GaussianNoise(0.25), n=1000)
        >>> len(found), found[1:].to_frame()["index"].tolist()
        (3, [1, 2])
    """

    def __init__(self, certificates: Iterable[Certificate]):
        self._all = tuple(certificates)

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, at: int) -> Certificate: ...
    @overload
    def __getitem__(self, at: slice) -> "Certificates": ...
    def __getitem__(self, at):
        if isinstance(at, slice):
            return Certificates(self._all[at])
        return self._all[at]

    def __add__(self, others: Iterable[Certificate]) -> "Certificates":
        return Certificates((*self, *others))

    def __repr__(self) -> str:
        abstained = sum(c.prediction == ABSTAIN for c in self)
        radius = np.mean([c.radius for c in self]) if self else 0.0
        return f"<{len(self)} certificates, {abstained} abstain, mean radius {radius:.4g}>"

    def _repr_html_(self) -> str:
        return f"<p>{self.__repr__()[1:-1]}</p>{self.to_frame().to_html(max_rows=20)}"

    def to_frame(self, labels: Labels | None = None) -> "pd.DataFrame":
        """A row an image, in full precision; with labels, also `label` and `correct` (0 or 1).

        Columns: index, prediction (-1: abstains), bounds, votes, gap, radii (units of the image),
        log_volume, theta in short (least, geometric mean, largest, root mean square), n, alpha,
        norm, basis, arithmetic. Needs pandas.
        """
        import pandas as pd

        rows = []
        for c in self:
            about = {"alpha": c.alpha, "norm": c.norm, "basis": c.basis.name}
            about["arithmetic"] = c.arithmetic
            rows.append({"index": c.index, "prediction": c.prediction, **c.numbers, **about})
        frame = pd.DataFrame(rows)
        if labels is not None:
            frame.insert(1, "label", checked_labels(labels, len(self)))
            frame.insert(3, "correct", (frame["prediction"] == frame["label"]).astype(int))
        return frame

    def summary(self, labels: Labels | None = None) -> "pd.Series":
        """Headline numbers, by name. Needs pandas.

        Without labels: images, those that abstain, means of the radii (0 where it abstains). With
        labels: certified accuracy, ACR (mean of radius where the prediction is right, else 0), the
        same of the proxy radii, median radius, and ACR balanced over classes (docs/measures.md).
        """
        import pandas as pd

        from ancer import measures

        frame = self.to_frame(labels)
        if labels is not None:
            return pd.Series({"images": len(self), **measures.summary(frame)})
        abstained = (frame["prediction"] == ABSTAIN).mean()
        means = frame[list(measures.MEANS.values())].mean(skipna=False).add_prefix("mean ")
        return pd.Series({"images": len(self), "abstained": abstained, **means})

    def plot(
        self, labels: Labels, *, by: str = "radius", ax: "Axes | None" = None, **line: Any
    ) -> "Axes":
        """The certified accuracy curve: the share that is right with a radius of at least r.

        by: "radius", "proxy_radius" or "in_box_proxy_radius"; ax: where to draw, a new one by
        default; line: options of matplotlib's `plot`, such as label. Needs pandas and matplotlib.
        """
        import matplotlib.pyplot as plt

        from ancer import measures

        if by not in measures.MEANS.values():
            raise ValueError(f"by must be one of {[*measures.MEANS.values()]}, found {by!r}")
        frame = self.to_frame(labels)
        if frame[by].isna().any():
            missing = int(frame[by].isna().sum())
            raise ValueError(
                f"{by} is not computed for {missing} images in this basis: plot another"
            )
        ax = ax or plt.subplots()[1]
        ends = np.unique([0.0, *frame[by]])
        shares = measures.certified_accuracy(frame, ends, by=by)
        ax.step(np.append(ends, ends[-1]), np.append(shares, 0), where="pre", **line)
        ax.set(xlabel=f"certified {by.replace('_', ' ')} r (l{self[0].norm})")
        ax.set(ylabel="share that is right, with radius >= r", ylim=(0, 1.03))
        return ax

    def save(self, folder: str | Path) -> None:
        """Write them into a folder: all of each certificate, and the table to be read.

        certificates.safetensors: images, theta, votes, bounds, how the network was evaluated;
        certificates.csv: `to_frame`.
        """
        tensors: dict[str, Tensor] = {}
        headers = []
        for k, c in enumerate(self):
            tensors |= {f"{k} center": c.center, f"{k} theta": c.theta}
            plain = {name: getattr(c, name) for name in PLAIN}
            evaluation = asdict(c.evaluation) if c.evaluation is not None else None
            votes = {str(label): count for label, count in c.votes.items()}
            about = {"votes": votes, "basis": [c.basis.name, c.basis.key]}
            headers.append({**plain, **about, "evaluation": evaluation})
        folder = Path(folder)
        write_tensors(folder / FILE, tensors, headers)
        write_text(folder / TABLE, self.to_frame().to_csv(index=False))

    @classmethod
    def load(cls, folder: str | Path, *, basis: Basis | None = None) -> "Certificates":
        """Those that `save` wrote into a folder.

        basis: in which theta is, where it has no name of ours (PCA, a matrix of yours). Raises
        FileNotFoundError where there are none, ValueError for another basis.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise FileNotFoundError(f"no certificates at {path}: give the folder of `save`")
        tensors, headers = read_tensors(path)
        found = []
        for k, header in enumerate(headers):
            center = tensors[f"{k} center"]
            found.append(_read(header, center, tensors[f"{k} theta"], basis))
        return cls(found)


def as_array(labels: Labels) -> np.ndarray:
    """Labels as an array, wherever a tensor of them is."""
    return np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)


def checked_labels(labels: Labels, count: int) -> np.ndarray:
    """The labels of so many certificates; ValueError unless they are so many whole numbers >= 0."""
    found = as_array(labels)
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"labels must be {count} whole numbers, one a certificate, "
            f"found {found.dtype} of shape {found.shape}"
        )
    if found.size and found.min() < 0:
        raise ValueError(f"labels must be class numbers >= 0, found {found.min()}: leave it out")
    return found


def _read(
    header: Mapping[str, Any], center: Tensor, theta: Tensor, basis: Basis | None
) -> Certificate:
    name, key = header["basis"]
    if basis is None or name == PIXELS.name:
        try:
            basis = basis_named(name, center.shape)
        except ValueError as error:
            raise ValueError(
                f"theta is in the basis {name!r}, which its name alone does not give: "
                "load(folder, basis=...)"
            ) from error
    if basis.key != key:
        raise ValueError(f"theta is in the basis {key}, found {basis.key}: give basis=...")
    evaluation = header["evaluation"]
    return Certificate(
        **{name: header[name] for name in PLAIN},
        center=center,
        theta=theta,
        votes={int(label): count for label, count in header["votes"].items()},
        evaluation=None if evaluation is None else Evaluation(**evaluation),
        basis=basis,
    )
