"""What a message is made of, and what the types of its fields say beside Python's: see codec.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Callable, Dict

__all__ = (
    "LEFT_OUT", "Absolute", "AbsolutePath", "Address", "AtMost", "Hex", "Within", "called",
    "message",
)  # fmt: skip


@dataclass(frozen=True)
class Hex:
    """A number that is sent as a hex string, of 64 bits at most."""


@dataclass(frozen=True)
class Within:
    """A whole number from `low` to `high`, both inclusive."""

    low: int
    high: int


@dataclass(frozen=True)
class AtMost:
    """A list of no more than `count`."""

    count: int


@dataclass(frozen=True)
class Absolute:
    """A path from "/" on: the current directory of one side is not the other's."""


Address = Annotated[int, Hex()]
"""A number that is shown, and sent, in hex."""

AbsolutePath = Annotated[str, Absolute()]


LEFT_OUT = {"left_out": True}
"""The metadata of a field that is not sent where it has its default."""


def called(name: str, default: Any = dataclasses.MISSING) -> Any:
    """A field that is sent by another name."""
    return dataclasses.field(default=default, metadata={"name": name})


if TYPE_CHECKING:
    from dataclasses import dataclass as message
else:

    def message(frozen: bool) -> Callable[[type], type]:
        """A dataclass, all the same, whose methods are the same functions for all: `dataclass`
        writes and compiles six for each, half a millisecond, and both sides read sixty when they
        start."""
        assert frozen
        return _message


def _message(cls: Any) -> Any:
    made = dataclass(init=False, repr=False, eq=False)(cls)
    made._defaults = {field.name: _maker(field) for field in dataclasses.fields(made)}
    for name in ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"):
        setattr(made, name, vars(_Methods)[name])
    return made


def _maker(field: Any) -> Callable[[], Any]:
    """Makes its default."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory  # type: ignore[no-any-return]
    if field.default is not dataclasses.MISSING:
        return lambda: field.default

    def missing() -> Any:
        raise TypeError(f"the field {field.name} is missing")

    return missing


class _Methods:
    """What a frozen dataclass has, for any fields."""

    _defaults: Dict[str, Callable[[], Any]]

    def __init__(self, *given: Any, **named: Any) -> None:
        values, defaults = self.__dict__, self._defaults
        values.update(zip(defaults, given))
        if len(given) > len(defaults) or not named.keys() <= defaults.keys() - values.keys():
            raise TypeError(f"{type(self).__name__} has no such fields")
        values.update(named)
        if len(values) < len(defaults):
            values.update({n: make() for n, make in defaults.items() if n not in values})
        check = getattr(self, "__post_init__", None)
        if check is not None:
            check()

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._defaults)
        return f"{type(self).__name__}({inside})"

    def __eq__(self, other: object) -> Any:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._defaults))

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
