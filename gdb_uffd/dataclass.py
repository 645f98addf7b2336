"""`dataclass` as the standard library has it, made when the class is first used.

dataclasses.dataclass writes and compiles up to eight methods where a class stands, 0.5 ms for a
frozen one: of two hundred that a server reads as it starts, most are never used.  Here a class gets
methods that do for any fields; its fields are looked at, and `__init__` is compiled, as the first
instance is made, or when somebody asks for the fields (dataclasses.fields, is_dataclass, replace).
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

_FIELDS = "__dataclass_fields__"  # by which dataclasses.fields() and others know one

_lock = threading.RLock()

_waiting: List[Any] = []


class _Pending:
    """Stands where the fields will be: whoever asks for them makes the class complete."""

    def __get__(self, _instance: object, cls: type) -> Any:
        _complete(next(each for each in cls.__mro__ if vars(each).get(_FIELDS) is self))
        return getattr(cls, _FIELDS)


def _complete(cls: Any) -> None:
    """`__init__` last, in the place of the one that called this."""
    with _lock:
        if isinstance(vars(cls).get(_FIELDS), _Pending):  # no other thread was quicker
            dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
            fields = dataclasses.fields(cls)
            cls._compared = tuple(field.name for field in fields if field.compare)
            cls._shown = tuple(field.name for field in fields if field.repr)
            cls.__init__ = _init(cls, fields)


def complete_one() -> bool:
    """Make one of those that wait complete, by whoever has nothing else to do for 0.2 ms; False
    where none waits."""
    if not _waiting:
        return False
    _complete(_waiting.pop())
    return True


def _init(cls: Any, fields: Tuple[dataclasses.Field[Any], ...]) -> Any:
    """Sets the fields where a frozen one has them, too."""
    scope: Dict[str, Any] = {"MISSING": dataclasses.MISSING}
    given, lines = ["self"], ["values = self.__dict__"]
    for field in fields:
        name, default = field.name, f"of_{field.name}"
        factory = field.default_factory
        if factory is not dataclasses.MISSING:
            scope[default] = factory
            made = f"{default}()"
            if field.init:
                given.append(f"{name}=MISSING")
                made += f" if {name} is MISSING else {name}"
            lines.append(f"values[{name!r}] = {made}")
        elif field.init:
            if field.default is not dataclasses.MISSING:
                scope[default] = field.default
            given.append(name if default not in scope else f"{name}={default}")
            lines.append(f"values[{name!r}] = {name}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    body = "\n    ".join(lines)
    exec(f"def __init__({', '.join(given)}):\n    {body}\n", scope)
    return scope["__init__"]


def _repr(self: Any) -> str:
    inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
    return f"{type(self).__qualname__}({inside})"


def _eq(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return all(getattr(self, name) == getattr(other, name) for name in self._compared)


def _hash(self: Any) -> int:
    return hash(tuple(getattr(self, name) for name in self._compared))


def _set(_self: Any, name: str, _value: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(_self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = {"__repr__": _repr, "__eq__": _eq, "__hash__": None}
_FROZEN = {**_METHODS, "__hash__": _hash, "__setattr__": _set, "__delattr__": _delete}


def _later(cls: Any, frozen: bool) -> Any:
    def __init__(self: Any, *given: Any, **named: Any) -> None:
        _complete(cls)
        cls.__init__(self, *given, **named)

    own = vars(cls)
    for name, method in (_FROZEN if frozen else _METHODS).items():
        if name not in own:
            setattr(cls, name, method)
    cls.__init__ = __init__
    setattr(cls, _FIELDS, _Pending())
    _waiting.append(cls)
    return cls


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: Any = None, *, frozen: bool = False) -> Any:
        """As dataclasses.dataclass."""
        return _later(cls, frozen) if cls is not None else lambda made: _later(made, frozen)
