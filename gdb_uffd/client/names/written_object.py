"""What `uffd why NAME|ADDRESS` means: the object's bytes, its type, and names for parts of it."""

from __future__ import annotations

import re
from typing import List, Optional

import gdb

from gdb_uffd.client.names import addresses, expression, scalars, type_facts
from gdb_uffd.client.names.type_facts import largest_value
from gdb_uffd.client.names.variables import Variable
from gdb_uffd.client.session.asking import FAILURES, setting
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_calls import Image
from gdb_uffd.protocol.model import UffdError, page_floor

GAP = 7
"""Equal bytes over which neighbouring changes are one, as in a report's runs."""

WORD = 8  # bytes watched at an address of which nothing is known

ADDRESS_MASK = 2**64 - 1

_MEMBER = re.compile(r"^(.+?)\s*(\.|->)\s*([A-Za-z_]\w*)\s*$", re.S)

_NO_OBJECT = (gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_METHOD)


@dataclass(frozen=True)
class Object:
    """`length` bytes at `address`; of `type`, if that is known, and then called `name`.

    `bits`: of a bit field, its lowest bit and its width within the bytes.  `after`: the name was
    looked up in the memory that the call left.
    """

    text: str
    address: int
    length: int
    name: str
    type: Optional[gdb.Type]
    bits: Optional["tuple[int, int]"] = None
    after: bool = False

    @property
    def end(self) -> int:
        """Behind the last byte."""
        return self.address + self.length


@dataclass(frozen=True)
class Part:
    """What one write changed: a name within the object, and its text before and after."""

    name: str
    type: str
    before: str
    after: str


def find(session: Session, text: str, after: bool = False) -> Object:
    """The object that an expression names or points to.  gdb.error when gdb cannot evaluate it."""
    # A function's call would become the last call.
    with setting("may-call-functions", "off"):
        value = gdb.parse_and_eval(text)
        if value.type.strip_typedefs().code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
            value = value.referenced_value()
        field = _bit_field(text, after)
        if field is not None:
            return field
        return _of_value(session, text, value, after)


def _of_value(session: Session, text: str, value: gdb.Value, after: bool) -> Object:
    plain = value.type.strip_typedefs()
    if plain.code in _NO_OBJECT:
        raise UffdError(f"{text} is a function: its code is not written")
    where = value.address
    if where is not None:
        if plain.sizeof < 1:
            raise UffdError(f"{text} has no size that is known: name an element, or an address")
        address = int(where) & ADDRESS_MASK
        return Object(text, address, plain.sizeof, text, value.type, after=after)
    if plain.code == gdb.TYPE_CODE_PTR:
        target = plain.target().strip_typedefs()
        if target.code not in (gdb.TYPE_CODE_VOID, *_NO_OBJECT) and target.sizeof > 0:
            name = text[1:].strip() if re.match(r"^&[\w.\[\]>-]+$", text) else f"*({text})"
            address = int(value) & ADDRESS_MASK
            return Object(text, address, target.sizeof, name, plain.target(), after=after)
    _refuse_what_has_no_memory(text, value)
    try:
        address = int(value) & ADDRESS_MASK
    except (*FAILURES, TypeError):
        raise UffdError(f"{text} is neither a variable nor an address") from None
    return _at_address(session, text, address, after)


def _refuse_what_has_no_memory(text: str, value: gdb.Value) -> None:
    """A variable whose number is no address."""
    if value.is_optimized_out:
        raise UffdError(f"{text} is optimized out here: it has no memory that is written")
    try:
        gdb.parse_and_eval(f"&({text})")
    except gdb.error as error:
        if "register" in str(error):
            raise UffdError(
                f"{text} is in a register, not in memory: a call gives it back as it was"
            ) from None


def _bit_field(text: str, after: bool) -> Optional[Object]:
    """A bit field has no address of its own, whatever gdb says: the bytes that hold it."""
    match = _MEMBER.match(text)
    if match is None:
        return None
    parent = gdb.parse_and_eval(match[1] if match[2] == "." else f"*({match[1]})")
    plain = parent.type.strip_typedefs()
    if parent.address is None or plain.code not in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        return None
    for field in plain.fields():
        if field.name != match[3] or not field.bitsize or field.type is None:
            continue
        if field.bitpos is not None:
            first, last = field.bitpos // 8, (field.bitpos + field.bitsize - 1) // 8
            bits = (field.bitpos - 8 * first, field.bitsize)
            address = int(parent.address) + first
            return Object(text, address, last - first + 1, text, field.type, bits, after)
    return None


def _at_address(session: Session, text: str, address: int, after: bool) -> Object:
    """A plain number: the stretch that the last call changed there, else the word."""
    start, end = address & -WORD, (address & -WORD) + WORD
    page = page_floor(address)
    image = session.request(Image(page))
    if image is not None:
        differ = [i for i, (x, y) in enumerate(zip(image.before, image.after)) if x != y]
        stretch = _stretch(differ, address - image.start)
        if stretch is not None:
            start, end = image.start + stretch[0], image.start + stretch[1]
    variable = addresses.variable(start)
    name = variable.at(start) if variable is not None else hex(start)
    return Object(text, start, end - start, name, None, after=after)


def _stretch(differ: List[int], at: int) -> Optional["tuple[int, int]"]:
    """The half-open run of changed offsets, joined over GAP, that holds `at`."""
    first = last = -1
    for offset in differ:
        if first >= 0 and offset - last <= GAP + 1:
            last = offset
            continue
        if first <= at <= last:
            break
        first = last = offset
    return (first, last + 1) if 0 <= first <= at <= last else None


def differs(session: Session, what: Object) -> bool:
    """Whether the last call left other bytes there."""
    for start in range(page_floor(what.address), what.end, 4096):
        image = session.request(Image(start))
        if image is not None:
            low, high = max(0, what.address - start), what.end - start
            if image.before[low:high] != image.after[low:high]:
                return True
    return False


def parts(
    what: Object, low: int, high: int, window: int, before: bytes, after: bytes
) -> List[Part]:
    """What a write of [low, high) did to the object; `window` is where the bytes begin."""
    if what.bits is not None and what.type is not None:
        texts = [_bits_text(what, data) for data in (before, after)]
        return [Part(what.name, str(what.type), *texts)]
    end = min(high, window + len(before))  # a longer write is told by its beginning
    changed = [a for a in range(low, end) if before[a - window] != after[a - window]] or [low]
    variable = _typed(what, low)
    found: List[Part] = []
    if variable is not None and variable.type is not None:
        read = _reader(window, before, after)
        walk = scalars.Walk(changed, read, printers=False)  # they show what is, elsewhere too
        place = expression.variable(variable.name)
        for leaf in walk.leaves(place, variable.type, variable.address):
            part = _leaf_part(walk, leaf)
            if part is not None:
                found.append(part)
            if len(found) == scalars.MAX_CHANGES:
                break
    # Padding that another class's member lies in, an empty base: nothing was written to those.
    found = [part for part in found if part.before != part.after] or found[:1]
    return found or [_bytes_part(what, changed[0], changed[-1] + 1, window, before, after)]


def _leaf_part(walk: scalars.Walk, leaf: scalars.ScalarPart) -> Optional[Part]:
    old, new = walk.bytes_of(leaf, False), walk.bytes_of(leaf, True)
    about = type_facts.info(leaf.type)
    if about.code in type_facts.STRUCTS and not about.fields:
        return None
    if old is None or new is None or leaf.size > largest_value():
        return _long_text(walk, leaf, about)
    return Part(leaf.place.text, str(leaf.type), _text(leaf.type, old), _text(leaf.type, new))


def _long_text(
    walk: scalars.Walk, leaf: scalars.ScalarPart, about: type_facts.TypeInfo
) -> Optional[Part]:
    """Of an array of characters that is too long to be told whole, those that were written."""
    written = [a for a in walk.changed if leaf.address <= a < leaf.address + leaf.size]
    if about.element is None or not type_facts.is_text(about.element) or not written:
        return None
    first, count = written[0], min(written[-1] + 1 - written[0], largest_value())
    old, new = walk.read(first, count, False), walk.read(first, count, True)
    if old is None or new is None:
        return None
    type_ = about.element.array(count - 1)
    name = f"{leaf.place.element(first - leaf.address + about.low).text}@{count}"
    return Part(name, str(type_), _text(type_, old), _text(type_, new))


def _reader(window: int, before: bytes, after: bytes) -> scalars.ReadBytes:
    """Reads the bytes of the window, which begins at that address."""

    def read(address: int, size: int, which: bool) -> Optional[bytes]:
        at, data = address - window, after if which else before
        return data[at : at + size] if 0 <= at <= len(data) - size else None

    return read


def _typed(what: Object, address: int) -> Optional[Variable]:
    if what.type is not None:
        return Variable(what.name, what.address, what.type, what.length)
    return addresses.variable(address)


def _bytes_part(
    what: Object, low: int, high: int, window: int, before: bytes, after: bytes
) -> Part:
    """Without a type, and where a value is too large: the bytes, a few of them."""
    offset = low - what.address
    name = f"{what.name}+{offset:#x}" if offset else what.name
    texts = []
    for data in (before, after):
        shown = data[low - window : min(high - window, low - window + 16)]
        texts.append(" ".join(f"{byte:02x}" for byte in shown) + ("…" if high - low > 16 else ""))
    return Part(name, f"{high - low} bytes", texts[0], texts[1])


def _text(type_: gdb.Type, data: bytes) -> str:
    """A value as gdb prints it; never what a pointer points to: that is another time's."""
    plain = type_.strip_typedefs()
    try:
        if plain.code == gdb.TYPE_CODE_PTR and plain.target().strip_typedefs().sizeof == 1:
            return hex(int.from_bytes(data, "little"))  # it would be shown as a string
        if plain.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
            return hex(int.from_bytes(data, "little"))
        text = str(gdb.Value(data, type_).format_string(max_elements=40, raw=True))
    except (*FAILURES, TypeError):
        return " ".join(f"{byte:02x}" for byte in data[:16])
    return text if len(text) <= scalars.MAX_TEXT else text[: scalars.MAX_TEXT - 1] + "…"


def _bits_text(what: Object, data: bytes) -> str:
    assert what.bits is not None and what.type is not None
    low, width = what.bits
    number = int.from_bytes(data, "little") >> low & (1 << width) - 1
    plain = what.type.strip_typedefs()
    if plain.code == gdb.TYPE_CODE_INT and plain.is_signed and number >> (width - 1) & 1:
        number -= 1 << width
    try:
        size = plain.sizeof
        return _text(what.type, (number & (1 << 8 * size) - 1).to_bytes(size, "little"))
    except (OverflowError, ValueError):
        return str(number)
