"""The JSON Schemas of the workflow: what a sheet and the configuration may hold, in one place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

# Karyon is installed editable from its checkout, which also holds the workflow.
REPOSITORY = Path(__file__).resolve().parents[3]

TYPE_WORDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}


@cache
def load_schema(name: str) -> dict[str, Any]:
    """A JSON Schema (2020-12) of ``workflow/schemas/``.

    Args:
        name: ``config`` or ``cohort``.

    Returns:
        The schema; shared between callers, not to be changed.
    """
    text = (REPOSITORY / "workflow" / "schemas" / f"{name}.schema.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def allowed_values(schema: dict[str, Any]) -> str:
    """What a key or column may hold, in words, such as ``a number from 0 to 1, or null``.

    Args:
        schema: The sub-schema of the key.
    """
    if "x-allowed" in schema:
        return str(schema["x-allowed"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"] if value != "")
    if schema["type"] == "object":
        return "a mapping with the keys " + ", ".join(schema["properties"])
    if schema["type"] == "array":
        each = allowed_values(schema["items"])
        return f"a list of at least {schema['minItems']}, without repeats, each {each}"
    first, *others = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    words = TYPE_WORDS[first] + _limits(schema)
    return words + "".join(f", or {TYPE_WORDS[other]}" for other in others)


def _limits(schema: dict[str, Any]) -> str:
    words = ""
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']} to {schema['maximum']}"
    elif "minimum" in schema:
        words += f" of at least {schema['minimum']}"
    if "exclusiveMinimum" in schema:
        words += f" greater than {schema['exclusiveMinimum']}"
    if "multipleOf" in schema:
        words += f", divisible by {schema['multipleOf']}"
    if schema.get("minLength"):
        words += ", not empty"
    return words


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The closest known word as a question, `` (did you mean 'x'?)``, or nothing.

    Args:
        name: The word that is not known.
        known: The words that are.
    """
    by_lower_case = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f" (did you mean '{by_lower_case[close[0]]}'?)" if close else ""


def show_value(value: object) -> str:
    """A value as messages print it: quoted, on one line, and not longer than 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown)} characters)"
