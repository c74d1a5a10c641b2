"""Records that compare every field with what its type declares, and the small languages of options."""

from argparse import ArgumentTypeError
from collections.abc import Iterable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from stilts_jax.errors import ConfigError, nearest


def split_names(text: str) -> tuple[str, ...]:
    """Splits names joined by ``+``."""
    return tuple(name.strip() for name in text.split("+") if name.strip())


def split_pairs(text: str, where: str) -> dict[str, str]:
    """Reads ``a=x,b=y``."""
    pairs = dict[str, str]()
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"{item!r} is not of the form name=value.", where=where, fix="write a=x,b=y")
        if pairs.setdefault(key.strip(), value.strip()) != value.strip():
            raise ConfigError(f"{key.strip()!r} has two values.", where=where, fix="give it one")
    return pairs


def stem(task: str) -> str:
    """Returns the name of the task whose control or translation ``task`` is: ``easy_vqa`` of ``easy_vqa.blind``."""
    return task.partition("@")[0].partition(".")[0]


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes; as the ``type`` of a command's argument it reads one, whole if ``low`` is."""

    low: float
    high: float

    def __call__(self, text: str) -> float:
        whole = isinstance(self.low, int)
        try:
            value = int(text) if whole else float(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{text[:60]!r} is no {'whole ' * whole}number") from error
        if not self.has(value):
            raise ArgumentTypeError(f"{text[:60]} is out of range: {self}")
        return value

    def has(self, value: Any) -> bool:
        """Says whether ``value`` is a number in range; NaN never is."""
        kind: Any = Integral if isinstance(self.low, int) else Real
        return isinstance(value, kind) and not isinstance(value, bool) and self.low <= value <= self.high

    def check(self, value: Any, name: str, where: str) -> None:
        """Raises unless ``value`` is a number in range."""
        if not self.has(value):
            what, fix = f"{name}={str(value)[:60]} is out of range.", f"take a number of {self}"
            raise ConfigError(what, where=where, fix=fix)

    def __str__(self) -> str:
        return f"at least {self.low} and at most {self.high}"


class Checked:
    """A record that compares every field with what its type declares; ``group`` stands before a field's name."""

    group: ClassVar[str] = "config."

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value, full = getattr(self, name, None), self._shown(name)
            odd = isinstance(value, str) and not value.isprintable()
            what = f"{full} has a character that can't be printed."
            self.refuse(odd, what, name, f"write it anew: {value!r}")
            if get_origin(hint) is Literal:
                self.choose(name, value, get_args(hint))
            for rule in getattr(hint, "__metadata__", ()):
                if value is not None or NoneType not in get_args(get_args(hint)[0]):
                    rule.check(value, full, f"{self.group}{name}")

    def refuse(self, wrong: Any, what: str, name: str, fix: str) -> None:
        """Raises an error about an option where something is ``wrong``."""
        if wrong:
            raise ConfigError(what, where=f"{self.group}{name}".rstrip("."), fix=fix)

    def choose(self, name: str, value: Any, known: Iterable[str]) -> None:
        """Raises unless an option's value is one of ``known``."""
        if value not in known:
            what = f"{self._shown(name)}={value!r} is not possible."
            self.refuse(True, what, name, nearest(value, known))

    def _shown(self, name: str) -> str:
        return f"{self.group}{name}".removeprefix("config.")


def option_names(kind: Any) -> list[str]:
    """Returns the fields of a record that are options: those without ``metadata={"option": False}``."""
    return [one.name for one in fields(kind) if one.metadata.get("option", True)]
