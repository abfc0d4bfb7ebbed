"""What files of others may take."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What an image may take, so that files of others do not fill the memory."""

    # for those who make a form of it: each field's sentence stands under it
    __pydantic_config__ = {"use_attribute_docstrings": True}  # noqa: RUF012

    megabytes: int = 64
    """Of one file, 10^6 bytes each; of an archive also what follows after its end."""
    megapixels: int = 64
    """Of one image, 10^6 pixels each."""

    def __post_init__(self):
        if min(self.megabytes, self.megapixels) < 1:
            raise ValueError(f"limits must be >= 1, found {self.megabytes} and {self.megapixels}")

    def check_file(self, path: Path, size: int) -> None:
        """Raise ValueError for a file of too many bytes."""
        if size > self.megabytes * 10**6:
            raise ValueError(
                f"{path} has {size:,} bytes, more than {self.megabytes} megabytes: remove it, or "
                "raise limits.megabytes"
            )

    def check_pixels(self, path: Path, width: int, height: int) -> None:
        """Raise ValueError for an image of too many pixels."""
        if width * height > self.megapixels * 10**6:
            raise ValueError(
                f"{path} is {width} x {height}, more than {self.megapixels} megapixels: remove it, "
                "or raise limits.megapixels"
            )
