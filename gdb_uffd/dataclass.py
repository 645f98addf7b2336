"""`dataclass` as the standard library has it, whose methods are made when the class is first used.

dataclasses.dataclass writes and compiles the methods of a class where it stands, 0.3 ms for each:
of two hundred classes that a server reads as it starts, most are never used.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from typing import TYPE_CHECKING, Any, Dict

_FIELDS = "__dataclass_fields__"  # by which dataclasses.fields() and others know one

_lock = threading.RLock()


class _Pending:
    """Stands where the fields of the class will be: whoever asks for them makes it complete."""

    def __init__(self, options: Dict[str, Any]) -> None:
        self.options = options

    def __get__(self, _instance: object, cls: type) -> Any:
        owner = next(each for each in cls.__mro__ if vars(each).get(_FIELDS) is self)
        _complete(owner)
        return getattr(cls, _FIELDS)


def _complete(cls: Any) -> None:
    """Its methods; `__init__` last, and put in the place of the one that called this."""
    with _lock:
        pending = vars(cls).get(_FIELDS)
        if not isinstance(pending, _Pending):
            return  # another thread was quicker
        dataclasses.dataclass(init=False, **pending.options)(cls)
        fields = getattr(cls, _FIELDS).values()
        after = getattr(cls, "__post_init__", None)
        like = dataclasses.make_dataclass(
            cls.__name__,
            [(field.name, field.type, copy.copy(field)) for field in fields],
            namespace={} if after is None else {"__post_init__": after},
            repr=False,
            eq=False,
            frozen=pending.options.get("frozen", False),
        )
        cls.__init__ = vars(like)["__init__"]


def _later(cls: Any, options: Dict[str, Any]) -> Any:
    def __init__(self: Any, *given: Any, **named: Any) -> None:
        _complete(cls)
        cls.__init__(self, *given, **named)

    assert "__init__" not in vars(cls), cls
    cls.__init__ = __init__
    setattr(cls, _FIELDS, _Pending(options))
    return cls


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: Any = None, **options: Any) -> Any:
        """As dataclasses.dataclass, with `frozen`, `eq`, `order`, `repr` and `unsafe_hash`."""
        return _later(cls, options) if cls is not None else lambda made: _later(made, options)
