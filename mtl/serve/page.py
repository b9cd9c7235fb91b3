"""The OpenAPI document as a page without scripts, and without anything from other hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "pre{background:#f4f4f4;padding:.7em;overflow:auto}h2{margin-top:1.6em}code{font-size:95%}"
)


def page(openapi: Mapping[str, Any]) -> str:
    """HTML: every path with what it takes and answers, from an OpenAPI document."""
    info = openapi["info"]
    parts = [f"<p>{escape(info['description'])} As <a href='openapi.json'>openapi.json</a>.</p>"]
    schemas = openapi.get("components", {}).get("schemas", {})
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation['summary'])}.</p>")
            content = operation.get("requestBody", {}).get("content", {})
            for item in operation.get("parameters", []):
                need = "required" if item.get("required") else "optional"
                parts.append(
                    f"<p><code>{escape(item['name'])}</code> in {escape(item['in'])}, {need}</p>"
                )
            for kind, value in content.items():
                parts.append(f"<p>Takes {escape(kind)}:</p>")
                parts += [_schema(name, schemas[name]) for name in _names(value["schema"])]
    listed = "".join(parts)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"{listed}</html>"
    )


def _names(schema: Mapping[str, Any]) -> list[str]:
    """Names of the schemas that a schema refers to."""
    if "$ref" in schema:
        return [str(schema["$ref"]).rpartition("/")[2]]
    found = [name for part in schema.get("anyOf", []) for name in _names(part)]
    found += _names(schema["items"]) if "items" in schema else []
    return list(dict.fromkeys(found))


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    fields = "".join(
        f"<li><code>{escape(key)}</code>"
        f"{'' if key in schema.get('required', []) else ' (optional)'}"
        f" {escape(value.get('description', ''))}</li>"
        for key, value in schema.get("properties", {}).items()
    )
    example = schema.get("example")
    shown = f"<pre>{escape(json.dumps(example, indent=2))}</pre>" if example else ""
    return f"<p>{escape(name)}: {escape(schema.get('description', ''))}</p><ul>{fields}</ul>{shown}"
