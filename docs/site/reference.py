"""Write the HTTP and command-line reference pages from the endpoint's OpenAPI description and the commands' --help."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

from sam_endpoint import commands
from sam_endpoint.__main__ import main
from sam_endpoint.scoring.online.app import create
from sam_endpoint.scoring.online.settings import EndpointSettings

FOLDER = Path(__file__).resolve().parents[2] / "build" / "docs" / "reference"
COLUMNS = "100"  # argparse breaks its lines there
MAX_TEXT = 60  # characters of a text in an example, so that images as base64 stay short
HTTP_HEAD = """# HTTP API

This page is generated from the endpoint's own OpenAPI description. A running endpoint serves the description at
`/openapi.json`, and a page to try the routes on at `/docs`. [openapi.json](openapi.json) is the copy of this version.

Columns, parameters and errors mean the same on all routes: see [the contract](../contract.md). [Serving](../serving.md)
tells how to choose a model, how to authenticate, and which limits apply. Long texts in the examples are shortened.
"""
COMMANDS_HEAD = """# Command line

This page is generated from the `--help` of each command. `python -m sam_endpoint` is the same as `sam-endpoint`.
"""


def http_page(description: dict[str, Any]) -> str:
    """Return the Markdown page of an OpenAPI description."""
    sections: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["Status"])[0]
            section = sections.setdefault(tag[:1].upper() + tag[1:], [])
            section.append(_operation(method, path, operation, description))
    return "\n".join([HTTP_HEAD, *(f"## {tag}\n\n" + "\n".join(parts) for tag, parts in sections.items())])


def _operation(method: str, path: str, operation: dict[str, Any], description: dict[str, Any]) -> str:
    """Return the section of one route."""
    lines = [f"### `{method.upper()} {path}`\n", operation.get("description", ""), ""]
    parameters = [{**parameter["schema"], **parameter} for parameter in operation.get("parameters", [])]
    if parameters:
        lines += ["Query parameters:\n", _table(parameters, description)]
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(body.get("schema", {}), description)
        lines.append(f"Request body: `{media_type}`\n")
        if properties := schema.get("properties"):
            required = schema.get("required", [])
            fields = [{"name": name, "required": name in required, **field} for name, field in properties.items()]
            lines.append(_table(fields, description))
        examples = {name: example["value"] for name, example in body.get("examples", {}).items()}
        if "example" in body:
            examples[""] = body["example"]
        for name, value in examples.items():
            text = json.dumps(_shortened(value), indent=2)
            lines.append(f"Example{f' ({name})' if name else ''}:\n\n```json\n{text}\n```\n")
    return "\n".join(lines)


def _table(fields: list[dict[str, Any]], description: dict[str, Any]) -> str:
    """Return the table of parameters or of a body's fields."""
    lines = ["| name | type | required | description |", "|---|---|---|---|"]
    for field in fields:
        default = field.get("default")
        text = field.get("description", "")
        if default not in (None, ""):
            text = f"{text} Default: `{json.dumps(default)}`.".strip()
        required = "yes" if field.get("required") else "no"
        kind = _type(field, description).replace("|", "\\|")
        lines.append(f"| `{field['name']}` | {kind} | {required} | {text} |")
    return "\n".join(lines) + "\n"


def _type(schema: dict[str, Any], description: dict[str, Any]) -> str:
    """Return the name of a schema's type; of alternatives, all but null."""
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(one, description) for one in choices if one.get("type") != "null"))
    schema = _resolved(schema, description)
    if choices := schema.get("enum"):
        return " or ".join(f"`{json.dumps(choice)}`" for choice in choices)
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}), description)}"
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return "file"
    return str(schema.get("type", "any"))


def _resolved(schema: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a reference names, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    resolved: dict[str, Any] = description["components"]["schemas"][name] if name else schema
    return resolved


def _shortened(value: Any) -> Any:
    """Return an example with its long texts cut off."""
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}..."
    return value


def commands_page() -> str:
    """Return the Markdown page of all commands' --help."""
    os.environ["COLUMNS"] = COLUMNS
    parts = [COMMANDS_HEAD, f"```text\n{_help()}```\n"]
    parts += [f"## `sam-endpoint {name}`\n\n```text\n{_help(name)}```\n" for name in commands.NAMES]
    return "\n".join(parts)


def _help(*words: str) -> str:
    """Return what a command prints for --help."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    openapi = create(EndpointSettings()).openapi()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "openapi.json").write_text(json.dumps(openapi, indent=2))
    (FOLDER / "http.md").write_text(http_page(openapi))
    (FOLDER / "command-line.md").write_text(commands_page())
