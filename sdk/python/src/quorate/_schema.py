"""From type hints to JSON schemas, and from arguments back to values. Pure."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from typing import Any, Callable, Literal, Optional, Union

from .errors import QuorateError, local

_PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
# `int | None` is another thing than `Optional[int]` since Python 3.10, and nothing before.
_UNIONS: tuple[Any, ...] = (Union, getattr(types, "UnionType", Union))
# Dataclasses in dataclasses; one that holds itself never ends.
_DEEPEST = 8


def refuse(what: str, next: str) -> QuorateError:
    return local("INVALID_ARGUMENT", "BAD_TOOL", what, next)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError) as why:
        what = f"the type hints of {function.__name__} can't be read: {why}"
        raise refuse(what, "import the types where the function is defined") from None


def parameters_of(function: Callable[..., Any], hints: dict[str, Any], leave_out: Optional[str]) -> dict[str, Any]:
    """The schema of the object that holds a function's arguments."""
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == leave_out:
            continue
        place = f"parameter {name} of {function.__name__}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise refuse(f"{place} has no name of its own", "name each parameter")
        if name not in hints:
            raise refuse(f"{place} has no type", "give it a type hint, such as `name: str`")
        properties[name] = _with_default(schema_of(hints[name], place), parameter.default)
        required += [name] if parameter.default is parameter.empty else []
    return _object(properties, required)


def schema_of(hint: Any, place: str, depth: int = 0) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise refuse(f"{place} is nested more than {_DEEPEST} deep", "use flatter types")
    origin, inner = typing.get_origin(hint), typing.get_args(hint)

    def of(part: Any) -> dict[str, Any]:
        return schema_of(part, place, depth + 1)

    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is Any:
        return {}
    if hint is type(None):
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in _UNIONS:
        return {"anyOf": [of(part) for part in inner]}
    if hint is list or origin is list:
        return {"type": "array", "items": of(inner[0])} if inner else {"type": "array"}
    if hint is dict or (origin is dict and inner[0] is str):
        return {"type": "object", "additionalProperties": of(inner[1])} if inner else {"type": "object"}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, of)
    next = "use str, int, float, bool, list, dict with str keys, Optional, Union, Literal or a dataclass"
    raise refuse(f"{place} has a type that has no JSON form: {hint}", next)


def _dataclass(hint: type, of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    hints = typing.get_type_hints(hint)
    properties, required = {}, []
    for field in (field for field in dataclasses.fields(hint) if field.init):
        properties[field.name] = of(hints[field.name])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return _object(properties, required)


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _with_default(schema: dict[str, Any], default: Any) -> dict[str, Any]:
    return {**schema, "default": default} if isinstance(default, (str, int, float, bool)) else schema


def value_of(hint: Any, given: Any) -> Any:
    """What the function gets for a value that fits the hint's schema."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is float and isinstance(given, int):
        return float(given)
    if origin in _UNIONS:
        return _one_of(inner, given)
    if origin is list and isinstance(given, list):
        return [value_of(inner[0], each) for each in given]
    if origin is dict and isinstance(given, dict):
        return {key: value_of(inner[1], each) for key, each in given.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(given, dict):
        hints = typing.get_type_hints(hint)
        return hint(**{name: value_of(hints[name], each) for name, each in given.items()})
    return given


def _one_of(hints: tuple[Any, ...], given: Any) -> Any:
    """As the first dataclass whose fields these are; as the only type that is not None; else as it is."""
    if given is None:
        return None
    for hint in hints:
        if isinstance(given, dict) and dataclasses.is_dataclass(hint):
            names = {field.name for field in dataclasses.fields(hint)}
            if given.keys() <= names:
                return value_of(hint, given)
    real = [hint for hint in hints if hint is not type(None)]
    return value_of(real[0], given) if len(real) == 1 else given


def text_of(value: Any) -> str:
    """What a model reads of a function's answer: texts as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "done" if value is None else json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
