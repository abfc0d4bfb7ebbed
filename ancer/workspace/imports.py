"""The modules that a module, function or notebook needs, by its imports; their code as one hash.

Nothing lists modules by hand: the closure is read from the sources, without importing them.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]  # of ancer


def code_of(*functions: Callable) -> str:
    """A hash of the modules that compute a result: those of the functions, and what they import.

    Of ancer and of the functions' own packages; other packages are known by their versions.
    """
    return hash_of_modules({function.__module__ for function in functions})


def hash_of_modules(names: Iterable[str]) -> str:
    """A hash of modules and of what they import, directly or not, and of the tables beside them."""
    digest = hashlib.sha256()
    for name in sorted(closure(names)):
        digest.update(f"{name}\n".encode())
        digest.update(_source(name).encode())
        digest.update(_table(name))
    return digest.hexdigest()[:16]


def closure(names: Iterable[str]) -> set[str]:
    """Modules, by name, and the modules of the same packages that they import."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= imports_of_module(name) - found
    return found


@cache
def imports_of_module(name: str) -> frozenset[str]:
    """The modules of its own package, or of ancer, that a module imports."""
    source = _source(name)
    top = name.partition(".")[0]
    found = imports(source, {"ancer", top}, package=_package(name))
    if top != "ancer":  # whose packages' own files hold no code
        found |= _packages_with_code(name)
    return frozenset(found)


def imports(source: str, packages: Iterable[str] = ("ancer",), *, package: str = "") -> set[str]:
    """The modules of some packages that a source imports; public names of ancer by their homes.

    package: the one that the source is in, for relative imports. What is imported for type checkers
    alone does not count.
    """
    found: set[str] = set()
    for node in _nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(relative, package)
            for alias in node.names:
                found.add(_home(module, alias.name))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "ancer":  # after `import ancer`
                found.add(_home("ancer", node.attr))
    found.discard("ancer")  # its public names count, one by one
    ours = set()
    for name in found:
        if name.partition(".")[0] in packages and _file(name) is not None:
            ours.add(name)
    return ours


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            if not isinstance(child.test, ast.UnaryOp):
                child.body = []
        yield from _nodes(child)


def _package(name: str) -> str:
    """The package that a module is in: its own name where it is one."""
    path = _file(name)
    if path is not None and path.name == "__init__.py":
        return name
    return name.rpartition(".")[0]


def _packages_with_code(name: str) -> set[str]:
    """The packages that a module is in whose own files hold more than a docstring."""
    found = set()
    while name := name.rpartition(".")[0]:
        if _file(name) and any(not _is_text(node) for node in ast.parse(_source(name)).body):
            found.add(name)
    return found


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _home(module: str, name: str) -> str:
    """The module that `from module import name` needs."""
    if module == "ancer" and name in public_names():
        return public_names()[name]
    if _file(f"{module}.{name}"):
        return f"{module}.{name}"
    return module


@cache
def public_names() -> dict[str, str]:
    """The public names of ancer and the modules that they come from, by __init__.pyi."""
    homes = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                homes[alias.name] = f"ancer.{node.module}"
    return homes


def _source(name: str) -> str:
    path = _file(name)
    if path is None:
        raise ValueError(f"no source of module {name!r}: it must be a file that can be imported")
    return path.read_text()


def _table(name: str) -> bytes:
    """The .toml beside a module; nothing where there is none."""
    path = _file(name)
    assert path is not None  # its source was read
    table = path.with_suffix(".toml")
    return table.read_bytes() if table.is_file() else b""


@cache
def _file(name: str) -> Path | None:
    """The source of a module; found without importing it or its parents."""
    top, *rest = name.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    path = Path(found.origin)
    for part in rest:
        if path.name != "__init__.py":
            return None
        package = path.parent / part / "__init__.py"
        path = package if package.is_file() else path.parent / f"{part}.py"
    return path if path.suffix == ".py" and path.is_file() else None
