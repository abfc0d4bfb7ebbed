"""Objects by name: one of ours, or "package.module:object" of anybody's."""

import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")
MOST = 50  # names in one message
# what experiments, methods and profiles may be called: files and folders have these names
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def find(name: str, known: Mapping[str, T], what: str) -> T:
    """known[name], or the object that "package.module:object" names.

    Raises ValueError that lists the names, or says why there is no such object.

    Example:
        >>> find("math:floor", {}, "function")(2.5)
        2
    """
    if name in known:
        return known[name]
    module, _, path = str(name).partition(":")
    if not (module and path):
        raise ValueError(
            f"unknown {what} {name!r}: {closest(name, known)} "
            "(or name your own, as 'package.module:object')"
        )
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no {what} {name!r}: {error}") from error


def closest(name: object, known: Iterable[object]) -> str:
    """What was probably meant by an unknown name, or else what there is, MOST at most."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return f"choose one of {', '.join(names[:MOST]) or 'none'}{more}"
