"""A dataclass from a mapping that a user wrote, with every mistake named at once."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from karyon.io.schemas import TYPE_WORDS, did_you_mean, show_value

T = TypeVar("T")
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class Range:
    """What a number may be; goes into ``Annotated[float, Range(...)]``.

    Attributes:
        low: Smallest value.
        high: Largest value.
        above: Whether ``low`` itself is too small.
    """

    low: float
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        words = f" greater than {self.low}" if self.above else f" of at least {self.low}"
        return words if self.high == float("inf") else f"{words} and at most {self.high}"


def read_settings(settings: type[T], content: object) -> T:
    """Fill a dataclass, and the dataclasses in it, from YAML's mappings, lists and plain values.

    Types are those of the annotations: text, numbers (``Annotated`` with a :class:`Range`), true or false,
    ``Literal``, ``tuple``, ``dict`` with text as keys, dataclasses, ``Any``, and ``| None``.

    Args:
        settings: The dataclass.
        content: What YAML gave.

    Raises:
        ValueError: Unknown keys, missing keys, values of another type or out of range: one a line.
    """
    mistakes = list(_mistakes(content, settings, ""))
    if mistakes:
        raise ValueError("\n".join(mistakes))
    filled: T = _fill(content, settings)
    return filled


def _mistakes(value: Any, hint: Any, key: str) -> Iterator[str]:
    if is_dataclass(hint):
        yield from _mapping_mistakes(value, hint, key)
    elif get_origin(hint) is tuple and isinstance(value, list) and _fits_length(value, hint):
        for number, (part, inner) in enumerate(zip(value, _tuple_hints(value, hint), strict=True)):
            yield from _mistakes(part, inner, f"{key}[{number}]")
    elif get_origin(hint) is dict and isinstance(value, dict):
        for name, part in value.items():
            yield from _mistakes(name, str, f"{key}: the name")
            yield from _mistakes(part, get_args(hint)[1], f"{key}.{name}")
    elif _is_optional(hint) and is_dataclass(get_args(hint)[0]) and isinstance(value, dict):
        yield from _mistakes(value, get_args(hint)[0], key)
    elif not _fits(value, hint):
        yield f"{key or 'the whole'} is {show_value(value)}; expected {_words(hint)}.{_exponent(value)}"


def _mapping_mistakes(value: Any, settings: Any, key: str) -> Iterator[str]:
    known = {item.name: item for item in fields(settings)}
    if not isinstance(value, dict):
        yield f"{key or 'the whole'} is {show_value(value)}; expected {_words(settings)}."
        return
    prefix = f"{key}." if key else ""
    hints = get_type_hints(settings, include_extras=True)
    for name in value:
        if name in known:
            yield from _mistakes(value[name], hints[name], f"{prefix}{name}")
        else:
            closest = did_you_mean(str(name), known)
            yield f"{prefix}{name} is an unknown key{closest}; expected one of {', '.join(known)}."
    for name, item in known.items():
        if name not in value and item.default is MISSING and item.default_factory is MISSING:
            yield f"{prefix}{name} is missing; expected {_words(hints[name])}."


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value without parts is of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return _fits(value, arguments[0]) and value in arguments[1]
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _fill(value: Any, hint: Any) -> Any:
    """The value in the types of the annotation; it has no mistakes."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        hints = get_type_hints(hint, include_extras=True)
        return hint(**{name: _fill(part, hints[name]) for name, part in value.items()})  # type: ignore[operator]
    if origin is tuple:
        return tuple(_fill(part, inner) for part, inner in zip(value, _tuple_hints(value, hint), strict=True))
    if origin is dict:
        return {name: _fill(part, arguments[1]) for name, part in value.items()}
    if origin is Annotated:
        return _fill(value, arguments[0])
    if _is_optional(hint) and value is not None:
        return _fill(value, arguments[0])
    # 8 and 8.0 are the same setting, and are to have the same fingerprint.
    return float(value) if hint is float else value


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and get_args(hint)[1:] == (types.NoneType,)


def _fits_length(value: list[Any], hint: Any) -> bool:
    return len(_tuple_hints(value, hint)) == len(value)


def _tuple_hints(value: list[Any], hint: Any) -> tuple[Any, ...]:
    """The type of each part of a tuple: ``tuple[x, ...]`` or a fixed number of them."""
    arguments = get_args(hint)
    return arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments


def _words(hint: Any) -> str:
    """What a value may be, such as ``a number greater than 0``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return "a mapping with the keys " + ", ".join(item.name for item in fields(hint))
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{count}, each {_words(arguments[0])}"
    if origin is dict:
        return f"a mapping of names to, each, {_words(arguments[1])}"
    if origin is Annotated:
        return _words(arguments[0]) + str(arguments[1])
    if origin is Literal:
        return "one of " + ", ".join(arguments)
    if origin in (Union, types.UnionType):
        return ", or ".join(_words(part) for part in arguments)
    if hint is Any:
        return "a value"
    return "null" if hint is types.NoneType else TYPE_WORDS[PLAIN[hint]]


def _exponent(value: object) -> str:
    """YAML takes 1e-3 for text."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    return "" if number is None else f" (YAML takes {value} for text: write {number!r} or 1.0e-3.)"
