"""What a task's record says, as plain values: so that a key can tell one declaration from another."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

_PLAIN = (str, int, float, bool, type(None))


def describe(value: Any, above: tuple[Callable, ...] = ()) -> Any:
    """Returns a record as values for JSON, the same in every process.

    A function is its name with what it was made with (the cells of a closure: columns, labels). A function from
    outside this package is also its source code, and what of its module it uses; one of the package changes together
    with the ``version`` of the tasks that use it.

    Args:
        above: functions that are being described, for those that call themselves.
    """
    if isinstance(value, _PLAIN):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: describe(getattr(value, field.name), above) for field in fields(value)}
    if isinstance(value, Mapping):
        return [[describe(key, above), describe(one, above)] for key, one in value.items()]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [describe(one, above) for one in value]
    if isinstance(value, partial):
        return [describe(one, above) for one in (value.func, value.args, value.keywords)]
    if inspect.isfunction(value):
        return value.__qualname__ if value in above else _describe_function(value, (*above, value))
    if isinstance(value, type) or inspect.isbuiltin(value) or inspect.ismodule(value):
        return value.__name__
    return [type(value).__qualname__, describe(getattr(value, "__dict__", None), above)]


def _describe_function(function: Callable[..., Any], above: tuple[Callable, ...]) -> Any:
    used = inspect.getclosurevars(function)
    parts: list[Any] = [function.__qualname__, used.nonlocals, function.__defaults__]
    if not function.__module__.startswith("stilts_jax."):
        parts += [_source(function), {name: _of_module(one, function) for name, one in used.globals.items()}]
    return describe(parts, above)


def _of_module(value: Any, function: Callable[..., Any]) -> Any:
    """Libraries that a user's function calls are named only."""
    foreign = inspect.isfunction(value) and value.__module__ != function.__module__
    return value.__qualname__ if foreign else value


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed into an interpreter: no file holds it
        return function.__code__.co_code.hex()
