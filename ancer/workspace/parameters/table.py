"""docs/parameters.md: every parameter of params.yaml, made from the models."""

import json
from collections.abc import Iterator
from typing import Any

from ancer.workspace.parameters.models import Parameters

INTRO = """# Parameters

All that `params.yaml` may hold: what it does not say has the default. A recipe of `train`, a
method or an experiment may say `base: <another one>` and has from that one what it does not say.
The options of a method are those of its function `theta`. This page is what `ancer parameters`
writes, from the models in `ancer/workspace/parameters/`.
"""
HEAD = ("| parameter | value | default | meaning |", "|:--|:--|:--|:--|")
KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "array": "list",
    "object": "names and values",
}
BOUNDS = {
    "ge": ">=",
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
}


def parameter_tables() -> str:
    """A Markdown page with a table for each section."""
    schema = Parameters.model_json_schema()
    plain = {name: field for name, field in schema["properties"].items() if not _section(field)}
    lines = [INTRO, "## Top level", "", *_table(plain, schema.get("required", []))]
    for name, field in schema["properties"].items():
        lines += _tables(name, field, schema["$defs"])
    return "\n".join(lines) + "\n"


def _tables(path: str, field: dict[str, Any], sections: dict[str, dict]) -> Iterator[str]:
    """Lines of the section that a field holds, if any, and of those in it."""
    section = _section(field)
    if section is None:
        return
    suffix, reference = section
    for kind in _references(reference):
        found = sections[kind]
        yield from ("", f"## `{path}{suffix}`", "", found.get("description", ""), "")
        yield from _table(found["properties"], found.get("required", []))
        for name, inner in found["properties"].items():
            yield from _tables(f"{path}{suffix}.{name}", inner, sections)


def _section(field: dict[str, Any]) -> tuple[str, dict] | None:
    """How a field leads to a section, and the reference; None where it holds a plain value."""
    if "anyOf" in field:  # a section, or nothing
        return next(filter(None, map(_section, field["anyOf"])), None)
    ways = [("", field), ("[]", field.get("items"))]
    for inner in field.get("patternProperties", {}).values():
        ways.append((".<name>", inner))
    ways.append((".<name>", field.get("additionalProperties")))
    for suffix, found in ways:
        if isinstance(found, dict) and ("$ref" in found or "oneOf" in found):
            return suffix, found
    return None


def _references(reference: dict[str, Any]) -> Iterator[str]:
    for one in reference.get("oneOf", [reference]):
        yield one["$ref"].rsplit("/", 1)[1]


def _table(fields: dict[str, dict], required: list[str]) -> list[str]:
    lines = list(HEAD)
    for name, field in fields.items():
        default = "" if name in required else f"`{json.dumps(field.get('default', {}))}`"
        meaning = field.get("description", "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{name}` | {_domain(field)} | {default} | {meaning} |")
    return lines


def _domain(field: dict[str, Any]) -> str:
    """The values that a field takes, in words."""
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "$ref" in field:
        return "section"
    if "anyOf" in field:
        return " or ".join(map(_domain, field["anyOf"])).replace(" or null", ", or nothing")
    kind = KINDS.get(field.get("type", ""), field.get("type", "anything"))
    bounds = [f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if name in field]
    return " ".join([kind, " and ".join(bounds)]).strip()
