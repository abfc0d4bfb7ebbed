"""One split of a data set, as a tensor plus indices."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    Args:
        name: of the data set, in messages and rows.
        images: (M, ...) float32 in [0, 1].
        labels: (M,) int64 in [0, len(classes)).
        index: (M,) int64, each image's number in its data set: rows name it and seeds depend on it.
        classes: their names.
        lattice: the step of the pixels' lattice (1/16 for digits, 1/255 for 8-bit images), None for
            float data.
        converted: whether images of all modes were taken as RGB, see `loading.load`.

    Raises:
        ValueError: names the data set and what does not fit.

    Example:
        >>> images = torch.rand(2, 1, 4, 4)
        >>> labels = torch.tensor([1, 0])
        >>> data = Dataset("mine", images, labels, torch.arange(2), ["a", "b"], None)
        >>> data.take([1]).labels.tolist()
        [0]
    """

    name: str
    images: Tensor
    labels: Tensor
    index: Tensor
    classes: Sequence[str]
    lattice: float | None
    converted: bool = False

    def __post_init__(self):
        if not len(self.images):
            raise ValueError(f"{self.name} has no images")
        inside = self.images.min() >= 0 and self.images.max() <= 1
        if self.images.dtype != torch.float32 or not inside:
            raise ValueError(f"images of {self.name} must be float32 in [0, 1]")
        self._check_numbers("labels", self.labels)
        self._check_numbers("index", self.index)
        if len(self.index.unique()) != len(self.index):
            raise ValueError(f"index of {self.name} has a number twice")
        wrong = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(wrong):
            raise ValueError(
                f"label {wrong[0].item()} of {self.name} is outside its {len(self.classes)} classes"
            )

    def _check_numbers(self, field: str, values: Tensor) -> None:
        expected = (len(self.images),)
        if values.dtype != torch.int64 or values.shape != expected:
            raise ValueError(
                f"{field} of {self.name} must be int64 of shape {expected}, "
                f"found {values.dtype} of shape {tuple(values.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digests(self) -> list[str]:
        """Of each image and its label, 16 hexadecimal digits: what results of it are tied to."""
        found = []
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            digest = hashlib.sha256(f"{tuple(image.shape)} {label}".encode())
            digest.update(image.contiguous().numpy().tobytes())
            found.append(digest.hexdigest()[:16])
        return found

    @cached_property
    def sha256(self) -> str:
        """Of all images and labels, their numbers, the classes and the lattice."""
        content = (list(self.classes), self.lattice, self.indices, self.digests)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @property
    def indices(self) -> list[int]:
        """The images' numbers, as a list."""
        return self.index.tolist()

    @property
    def digest_of(self) -> dict[int, str]:
        """The images' digests by their numbers."""
        return dict(zip(self.indices, self.digests, strict=True))

    @cached_property
    def position_of(self) -> dict[int, int]:
        """The images' positions by their numbers."""
        return dict(zip(self.indices, range(len(self)), strict=True))

    def take(self, numbers: Sequence[int]) -> "Dataset":
        """The part with these image numbers, in their order.

        Raises ValueError for one that is not among `index`.
        """
        at = []
        for number in numbers:
            if number not in self.position_of:
                raise ValueError(
                    f"image {number} of {self.name} is not among the {len(self)} that were loaded"
                )
            at.append(self.position_of[number])
        return replace(self, images=self.images[at], labels=self.labels[at], index=self.index[at])


@dataclass(frozen=True)
class Split:
    """A split before its images are chosen.

    read takes (M,) positions in it and gives the images (M, ...), float32 in [0, 1].
    The other fields are those of `Dataset`.
    """

    labels: Tensor
    index: Tensor
    classes: Sequence[str]
    lattice: float | None
    read: Callable[[Tensor], Tensor]
    converted: bool = False

    def in_order(self, name: str, classes: Sequence[str]) -> "Split":
        """The split with its labels as positions in these classes.

        Raises ValueError for a class of the split that is missing there, or one that is twice.
        """
        if len(set(classes)) != len(classes):
            raise ValueError(f"classes of {name} must be distinct, found {list(classes)}")
        missing = sorted(set(self.classes) - set(classes))
        if missing:
            raise ValueError(
                f"{name} has {len(missing)} classes that `classes` lacks: add {', '.join(missing)}"
            )
        position = torch.tensor(list(map(classes.index, self.classes)))
        return replace(self, labels=position[self.labels], classes=list(classes))

    def choose(self, name: str, chosen: Tensor) -> Dataset:
        """The images at some positions."""
        return Dataset(
            name=name,
            images=self.read(chosen),
            labels=self.labels[chosen],
            index=self.index[chosen],
            classes=self.classes,
            lattice=self.lattice,
            converted=self.converted,
        )
