"""Messages as JSON and back, by the types of their fields.

A dataclass is an object, one with `in_a_row` an array of its fields; an Address (fields.py) is a
hex string, bytes are hex digits; lists and tuples are arrays; a Union of dataclasses is told by the
field that is a Literal in each.  Fields that are not known are passed over, those that are missing
have their defaults: so an older or a newer side is understood.  Whatever else is not as its type
says is a CodecError, and nothing else is raised.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
import re
import typing
from typing import Any, Callable, Dict, List, Literal, Sequence, Tuple, Type, TypeVar, Union

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.fields import Absolute, AtMost, Hex, Within
from gdb_uffd.protocol.model import UffdError

T = TypeVar("T")
Convert = Callable[[Any], Any]

MAX_MESSAGE = 64 << 20
"""Characters.  gdb takes replies longer than a packet; this only bounds what one may cost."""

WORD = Within(-(1 << 63), (1 << 64) - 1)
"""What numbers may be of which nothing else is said."""

_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_FRAMING = str.maketrans({"#": "\\u0023", "$": "\\u0024", "*": "\\u002a"})


class CodecError(UffdError):
    """What came is no such message."""


class _Wrong(Exception):
    """`what` is wrong with the value at `path`."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what, self.path = what, ""

    def inside(self, step: str) -> None:
        """It is a part of something."""
        self.path = step + ("." if self.path and self.path[0] != "[" else "") + self.path


def to_text(value: Any) -> str:
    """`value` as JSON that packets carry as it is (gdb manual, "Overview", remote protocol): none
    of `#`, `$`, `*` in it, and `}` only where an object closes."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    text = text.translate(_FRAMING)  # these stand only inside strings
    if "}" in "".join(_STRING.findall(text)):  # rare, and the replacing takes ten times as long
        text = _STRING.sub(lambda m: m.group().replace("}", "\\u007d"), text)
    return text


def from_text(text: Union[str, bytes]) -> Any:
    """The JSON value; CodecError where it is none."""
    try:
        if len(text) <= MAX_MESSAGE:
            return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise CodecError("not JSON")


def to_json(value: Any) -> Any:
    """A message, or a list of them, as plain JSON types."""
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    kind: Any = type(value)
    if not dataclasses.is_dataclass(kind):
        return value
    hint: Any = kind
    return _converters(hint)[0](value)


def from_json(kind: Type[T], data: Any, of: str = "") -> T:
    """The value of that type (Optional[...] and the like too); CodecError, "{of}: pages[3].start is
    not ..." """
    try:
        hint: Any = kind
        return typing.cast(T, _converters(hint)[1](data))
    except _Wrong as wrong:
        words = f"{wrong.path} {wrong.what}" if wrong.path else wrong.what
        separator = ": " if wrong.path else " "
        raise CodecError(f"{of}{separator}{words}" if of else words) from None


def prepare(kind: Any) -> None:
    """Look at a message's types now: its first one takes milliseconds longer than the others."""
    _converters(kind)


@functools.cache
def _converters(hint: Any) -> Tuple[Convert, Convert]:
    """To JSON and back, for what a type says; made once."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _marked(inner[0], inner[1:])
    if origin is Union:
        return _one_of(inner)
    if origin is Literal:
        return _literal(inner)
    if origin in (list, collections.abc.Sequence):
        return _list(inner[0], None)
    if origin is tuple:
        return _list(inner[0], None, tuple) if inner[-1] is Ellipsis else _tuple(inner)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint)
    return _PLAIN[hint]


def _same(value: Any) -> Any:
    return value


def _checked(kind: type, words: str) -> Tuple[Convert, Convert]:
    def read(data: Any) -> Any:
        if type(data) is not kind:
            raise _Wrong(words)
        return data

    return _same, read


def _number(data: Any) -> float:
    if type(data) not in (int, float) or not abs(data) < 1 << 64:  # nor is it no number (NaN)
        raise _Wrong("is not a number")
    return float(data)


def _whole(limits: Within, words: str) -> Tuple[Convert, Convert]:
    low, high = limits.low, limits.high

    def read(data: Any) -> int:
        if type(data) is not int or not low <= data <= high:
            raise _Wrong(words)
        return data

    return _same, read


def _bytes(data: Any) -> bytes:
    try:
        out = bytes.fromhex(data)
        if 2 * len(out) == len(data):  # no blanks in it
            return out
    except (TypeError, ValueError):
        pass
    raise _Wrong("is not hex digits, two for each byte")


def _address(data: Any) -> int:
    if type(data) is not str or not _ADDRESS.fullmatch(data):
        raise _Wrong('is not a hex string such as "0x1000"')
    return int(data, 16)


def _path(data: Any) -> str:
    if type(data) is not str or data[:1] != "/" or "\0" in data:
        raise _Wrong("is not an absolute path")
    return data


_PLAIN: Dict[Any, Tuple[Convert, Convert]] = {
    bool: _checked(bool, "is not true or false"),
    int: _whole(WORD, "is not a whole number"),
    float: (_same, _number),
    str: _checked(str, "is not a text"),
    bytes: (bytes.hex, _bytes),
}


def _marked(hint: Any, marks: Sequence[Any]) -> Tuple[Convert, Convert]:
    (mark,) = marks
    if isinstance(mark, Hex):
        return hex, _address
    if isinstance(mark, Absolute):
        return _same, _path
    if isinstance(mark, Within):
        return _whole(mark, f"is not a number from {mark.low:,} to {mark.high:,}")
    assert isinstance(mark, AtMost)
    return _list(typing.get_args(hint)[0], mark.count)


def _literal(values: Sequence[Any]) -> Tuple[Convert, Convert]:
    texts = [json.dumps(value) for value in values]
    words = "is not " + " or ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))

    def read(data: Any) -> Any:
        if type(data) not in (str, int) or data not in values:
            raise _Wrong(words)
        return data

    return _same, read


def _one_of(kinds: Sequence[Any]) -> Tuple[Convert, Convert]:
    some = [kind for kind in kinds if kind is not type(None)]
    write, read = _converters(some[0]) if len(some) == 1 else _told_apart(some)
    if len(some) == len(kinds):
        return write, read

    def write_some(value: Any) -> Any:
        return None if value is None else write(value)

    def read_some(data: Any) -> Any:
        return None if data is None else read(data)

    return write_some, read_some


def _told_apart(kinds: Sequence[Any]) -> Tuple[Convert, Convert]:
    """Dataclasses, each with another Literal in the field of one name."""
    literals = [
        {f.name: f.hint for f in fields_of(kind) if typing.get_origin(f.hint) is Literal}
        for kind in kinds
    ]
    (tag,) = set(literals[0]).intersection(*literals)
    by: Dict[Any, Convert] = {}
    for kind, hints in zip(kinds, literals):
        by.update(dict.fromkeys(typing.get_args(hints[tag]), _converters(kind)[1]))
    words = f"has no {tag} that is known"

    def read(data: Any) -> Any:
        of = data.get(tag) if type(data) is dict else None
        if type(of) is not str or of not in by:
            raise _Wrong(words)
        return by[of](data)

    return to_json, read


def _list(hint: Any, most: Any, made: Callable[[Any], Any] = _same) -> Tuple[Convert, Convert]:
    write_item, read_item = _converters(hint)
    words = "is not a list" + (f" of at most {most:,}" if most is not None else "")

    def write(values: Any) -> Any:
        return list(values) if write_item is _same else [write_item(value) for value in values]

    def read(data: Any) -> Any:
        if type(data) is not list or (most is not None and len(data) > most):
            raise _Wrong(words)
        out: List[Any] = []
        try:
            for item in data:
                out.append(read_item(item))
        except _Wrong as wrong:
            wrong.inside(f"[{len(out)}]")
            raise
        return made(out)

    return write, read


def _tuple(hints: Sequence[Any]) -> Tuple[Convert, Convert]:
    both = [_converters(hint) for hint in hints]
    words = f"is not a list of {len(both)}"

    def write(values: Any) -> Any:
        return [item[0](value) for item, value in zip(both, values)]

    def read(data: Any) -> Any:
        if type(data) is not list or len(data) != len(both):
            raise _Wrong(words)
        out: List[Any] = []
        try:
            for item, value in zip(both, data):
                out.append(item[1](value))
        except _Wrong as wrong:
            wrong.inside(f"[{len(out)}]")
            raise
        return tuple(out)

    return write, read


@dataclass(frozen=True)
class Field:
    """A field of a message: its own name and that on the wire; `left_out`: not sent where it is
    `default`."""

    name: str
    wire: str
    hint: Any
    needed: bool
    default: Any
    left_out: bool


@functools.cache
def fields_of(kind: Any) -> Tuple[Field, ...]:
    """Those of a dataclass, in their order."""
    hints = typing.get_type_hints(kind, include_extras=True)
    every = bool(getattr(kind, "sparse", False))
    out = []
    for each in dataclasses.fields(kind):
        default = each.default
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        needed = default is dataclasses.MISSING
        left_out = not needed and (every or bool(each.metadata.get("left_out")))
        wire = str(each.metadata.get("name", each.name))
        out.append(Field(each.name, wire, hints[each.name], needed, default, left_out))
    return tuple(out)


def _dataclass(kind: Any) -> Tuple[Convert, Convert]:
    fields = [(field, *_converters(field.hint)) for field in fields_of(kind)]
    if getattr(kind, "in_a_row", False):
        return _row(kind, fields)
    plain = [(f.wire, f.name, write) for f, write, _ in fields if not f.left_out]
    seldom = [(f.wire, f.name, write, f.default) for f, write, _ in fields if f.left_out]

    def write(value: Any) -> Any:
        out: Dict[str, Any] = {}
        for wire, name, convert in plain:
            item = getattr(value, name)
            out[wire] = item if convert is _same else convert(item)
        for wire, name, convert, default in seldom:
            item = getattr(value, name)
            if item != default:
                out[wire] = convert(item)
        return out

    each = [(f.wire, f.name, read, f.needed) for f, _, read in fields]
    read_whole = _reader(kind, fields)

    def read(data: Any) -> Any:
        if type(data) is not dict:
            raise _Wrong("is not an object")
        try:
            return read_whole(data)
        except (_Wrong, KeyError, ValueError):
            return read_slowly(data)

    def read_slowly(data: Any) -> Any:
        """The same where a field is missing; else it tells where it is wrong."""
        made: Dict[str, Any] = {}
        wire = ""
        try:
            for wire, name, convert, needed in each:
                if needed or wire in data:
                    made[name] = convert(data.get(wire))
        except _Wrong as wrong:
            wrong.inside(wire)
            raise
        return _made(kind, made)

    return write, read


def _reader(kind: Any, fields: Sequence[Tuple[Field, Convert, Convert]]) -> Convert:
    """A function that reads an object without a fault, spelled out for speed as those of
    dataclasses are: a report has bytes by the thousand."""
    names: Dict[str, Any] = {"kind": kind}
    parts = []
    for n, (field, _, read) in enumerate(fields):
        names[f"read{n}"], names[f"default{n}"] = read, field.default
        part = f"read{n}(data[{field.wire!r}])"
        if field.left_out:
            fresh = ".copy()" if isinstance(field.default, list) else ""
            part += f" if {field.wire!r} in data else default{n}{fresh}"
        parts.append(part)
    made: Convert = eval(f"lambda data: kind({', '.join(parts)})", names)
    return made


def _made(kind: Any, values: Dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except ValueError as error:  # its fields do not go together
        raise _Wrong(str(error)) from None


def _row(kind: Any, fields: Sequence[Tuple[Field, Convert, Convert]]) -> Tuple[Convert, Convert]:
    least = sum(field.needed for field, _, _ in fields)
    words = f"is not a list of {least}" + (f" to {len(fields)}" if least < len(fields) else "")

    def write(value: Any) -> Any:
        out = [convert(getattr(value, field.name)) for field, convert, _ in fields]
        while len(out) > least and getattr(value, fields[len(out) - 1][0].name) == (
            fields[len(out) - 1][0].default
        ):
            out.pop()
        return out

    def read(data: Any) -> Any:
        if type(data) is not list or not least <= len(data) <= len(fields):
            raise _Wrong(words)
        made: Dict[str, Any] = {}
        try:
            for (field, _, convert), item in zip(fields, data):
                made[field.name] = convert(item)
        except _Wrong as wrong:
            wrong.inside(f"[{len(made)}]")
            raise
        return _made(kind, made)

    return write, read
