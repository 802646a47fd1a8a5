"""The configuration of a run: checked as a whole, and completed with the defaults."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from karyon.errors import SheetError
from karyon.io.schemas import allowed_values, did_you_mean, load_schema, show_value


def _is_number(_: object, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


# YAML writes .nan and .inf, which pass every comparison with a limit, or break it.
_Validator = extend(
    Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number)
)


def complete_config(config: dict[str, Any], source: str = "config") -> dict[str, Any]:
    """A configuration checked against ``workflow/schemas/config.schema.yaml``, with every key present.

    Args:
        config: As read from YAML; it is not changed.
        source: What messages call it, such as the file's name.

    Returns:
        A new dictionary in the schema's order. Whole numbers are int and other numbers float, so that
        ``8`` and ``8.0`` are the same setting with the same fingerprint.

    Raises:
        SheetError: The configuration has mistakes; the message lists all of them, one a line.
    """
    schema = load_schema("config")
    mistakes: dict[str, None] = {}
    for error in _Validator(schema).iter_errors(config):
        mistakes.update(dict.fromkeys(_describe(error, schema)))
    if mistakes:
        raise SheetError("\n".join(f"{source}: {mistake}" for mistake in mistakes))
    return _complete(config, schema)


def read_configuration(path: Path) -> dict[str, Any]:
    """The complete configuration of a run, from what Snakemake is given as ``--configfile``, or from a sheet.

    Args:
        path: A YAML file, or a cohort sheet, which stands for a run with the defaults.

    Raises:
        SheetError: The file cannot be read, or the configuration has mistakes.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        return complete_config({"cohort": path.name.partition(".")[0], "sheet": str(path)}, str(path))
    try:
        return complete_config(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SheetError(f"{path}: cannot be read as a configuration ({error})") from error


def _describe(error: ValidationError, schema: dict[str, Any]) -> Iterator[str]:
    """The mistakes in one error: usually one, but several unknown or missing keys come together."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)[1:]
    prefix = f"{key}." if key else ""
    rules = error.schema
    value: Any = error.instance
    if not isinstance(rules, dict):
        raise TypeError(f"the schema of {key} is not a mapping")
    if error.validator == "additionalProperties":
        for name in value:
            if name not in rules["properties"]:
                closest = did_you_mean(str(name), rules["properties"]) or _elsewhere(str(name), schema)
                choices = ", ".join(rules["properties"])
                yield f"{prefix}{name} is an unknown key{closest}; expected one of {choices}."
    elif error.validator == "required":
        for name in rules["required"]:
            if name not in value:
                yield f"{prefix}{name} is missing; expected {allowed_values(rules['properties'][name])}."
    else:
        yield f"{key or 'the whole'} is {show_value(value)}; expected {allowed_values(rules)}."


def _elsewhere(name: str, schema: dict[str, Any]) -> str:
    """Where a key belongs that was written at the wrong level, as a question, or ''."""
    for section, rules in schema["properties"].items():
        if name == section:
            return f" (did you mean '{section}' at the top level?)"
        if name in rules.get("properties", {}):
            return f" (did you mean '{section}.{name}'?)"
    return ""


def _complete(value: Any, rules: dict[str, Any]) -> Any:
    if rules.get("type") == "object":
        return {
            name: _complete(value[name] if name in value else _default(part), part)
            for name, part in rules["properties"].items()
        }
    if rules.get("type") == "array":
        return [_complete(item, rules["items"]) for item in value]
    if rules.get("type") == "integer":
        return int(value)
    return float(value) if _is_number(None, value) else copy.copy(value)


def _default(rules: dict[str, Any]) -> Any:
    return {} if rules.get("type") == "object" else rules["default"]
