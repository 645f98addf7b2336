"""Containers as their pretty printers show them: which of their children a call changed."""

from __future__ import annotations

import contextlib
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

import gdb

from gdb_uffd.client.names.scalars import MAX_TEXT, shown
from gdb_uffd.client.names.type_facts import bare_name
from gdb_uffd.client.session.asking import setting
from gdb_uffd.dataclass import dataclass

MAX_CHILDREN = 512
"""Children of one container that are compared."""


@dataclass(frozen=True)
class Child:
    """An element: `label` as it follows the container's name ("[2]", '["ada"]', ".first")."""

    label: str
    text: str
    type: str
    address: Optional[int]
    size: int
    value_type: Optional[gdb.Type] = None


@dataclass(frozen=True)
class ShownContainer:
    """What a container shows in one state of memory; `head`: without its children."""

    head: str
    children: Tuple[Child, ...]
    positions: bool  # labels are positions, not keys
    complete: bool  # there are no more children


@dataclass(frozen=True)
class Difference:
    """One child that is not as it was; None where it was not there."""

    before: Optional[Child]
    after: Optional[Child]


@contextlib.contextmanager
def language(types: Iterable[gdb.Type]) -> Iterator[None]:
    """gdb's language as the printers of these types need it: those of libstdc++ look C++ names up,
    which gdb does not find while a frame of a C library is selected."""
    if not any("::" in bare_name(type_) for type_ in types):
        yield
        return
    with setting("language", "c++"):
        yield


def state(type_: gdb.Type, address: int) -> Optional[ShownContainer]:
    """The container at `address` as memory is shown now; None when its printer fails.

    A printer is the user's code over memory that may hold anything: it may raise whatever it likes.
    """
    try:
        value = gdb.Value(address).cast(type_.pointer()).dereference()
        printer = gdb.default_visualizer(value)
        if printer is None:
            return None
        head = _text_of(printer.to_string()) if hasattr(printer, "to_string") else ""
        hint = printer.display_hint() if hasattr(printer, "display_hint") else None
        if not hasattr(printer, "children") or hint == "string":
            return ShownContainer(
                shown(value) if hint == "string" or not head else head, (), False, True
            )
        children: List[Child] = []
        complete = True
        for child in _children(printer.children(), hint == "map"):
            if len(children) == MAX_CHILDREN:
                complete = False
                break
            children.append(child)
        return ShownContainer(head, tuple(children), hint != "map", complete)
    except Exception:
        return None


def _text_of(given: object) -> str:
    """What to_string() gave: text, a value, a lazy string, or nothing."""
    if given is None:
        return ""
    if isinstance(given, str):
        return given[:MAX_TEXT]
    if isinstance(given, gdb.Value):
        return shown(given)
    lazy = getattr(given, "value", None)
    return shown(lazy()) if callable(lazy) else str(given)[:MAX_TEXT]


def _children(pairs: Iterator[Tuple[str, object]], keyed: bool) -> Iterator[Child]:
    key: Optional[str] = None
    for name, given in pairs:
        value = given if isinstance(given, gdb.Value) else None
        text = shown(value) if value is not None else _text_of(given)
        if keyed and key is None:
            key = text
            continue
        where = value.address if value is not None else None
        label = f"[{key}]" if keyed else name if name.startswith("[") else f".{name}"
        key = None
        yield Child(
            label,
            text,
            str(value.type) if value is not None else "",
            None if where is None else int(where),
            value.type.sizeof if value is not None else 0,
            value.type if value is not None else None,
        )


def differences(before: ShownContainer, after: ShownContainer) -> List[Difference]:
    """Children that changed, came or went.  Keys are compared by key; where labels are only
    positions and their number differs, what is alike at both ends stays out."""
    if _in_a_row(before) and _in_a_row(after) and len(before.children) != len(after.children):
        return _by_position(before.children, after.children)
    old: Dict[str, Child] = {child.label: child for child in before.children}
    new: Dict[str, Child] = {child.label: child for child in after.children}
    found = []
    for label in dict.fromkeys([*old, *new]):
        was, is_ = old.get(label), new.get(label)
        if (was is None and not before.complete) or (is_ is None and not after.complete):
            continue
        if was is None or is_ is None or was.text != is_.text:
            found.append(Difference(was, is_))
    return found


def _in_a_row(state: ShownContainer) -> bool:
    """Whether the labels are the positions: a bit set shows only its ones, by their numbers."""
    rows = enumerate(state.children)
    return state.positions and all(
        c.label in (f"[{i}]", f".[{i}]") or "[" not in c.label for i, c in rows
    )


def _by_position(old: Tuple[Child, ...], new: Tuple[Child, ...]) -> List[Difference]:
    first = 0
    while first < min(len(old), len(new)) and old[first].text == new[first].text:
        first += 1
    last = 0
    most = min(len(old), len(new)) - first
    while last < most and old[-1 - last].text == new[-1 - last].text:
        last += 1
    was, is_ = old[first : len(old) - last], new[first : len(new) - last]
    paired = [Difference(a, b) for a, b in zip(was, is_)]
    gone = [Difference(child, None) for child in was[len(is_) :]]
    return [*paired, *gone, *(Difference(None, child) for child in is_[len(was) :])]
