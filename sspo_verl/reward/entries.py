"""JSON serialization of reasoning-gym entries that preserves types that verifiers distinguish, such as tuples."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

_TUPLE, _SET, _PAIRS = "$tuple", "$set", "$pairs"
# {exact type: (its key, how to read it from its str())}
_AS_TEXT = {
    Fraction: ("$fraction", Fraction),
    Decimal: ("$decimal", Decimal),
    complex: ("$complex", complex),
    date: ("$date", date.fromisoformat),
    datetime: ("$datetime", datetime.fromisoformat),
}
_READERS = dict(_AS_TEXT.values())


def to_json(value: Any) -> str:
    """The value as JSON. Raises ValueError for a type that cannot be restored from JSON."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Any:
    """The value that `to_json` wrote. Raises ValueError if the text is not JSON."""
    return _whole(json.loads(text))


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(each) for each in value]}
    if isinstance(value, (set, frozenset)):
        return {_SET: sorted((_plain(each) for each in value), key=repr)}
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _plain(each) for key, each in value.items()}
        return {_PAIRS: [[_plain(key), _plain(each)] for key, each in value.items()]}
    if type(value) in _AS_TEXT:
        return {_AS_TEXT[type(value)][0]: str(value)}
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    if isinstance(value, str):  # a string enum
        return str.__str__(value)
    raise ValueError(f"a {type(value).__name__} ({value!r:.60}) cannot be written as JSON")


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key == _TUPLE:
            return tuple(_whole(inner))
        if key == _SET:
            return set(_whole(inner))
        if key in _READERS:
            return _READERS[key](inner)
        if key == _PAIRS:
            return {_whole(name): _whole(each) for name, each in inner}
    return {key: _whole(each) for key, each in value.items()}
