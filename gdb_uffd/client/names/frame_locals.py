"""Locals and arguments of live frames that a call wrote over: of any recorded thread."""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import Iterator, List, Optional, Set

import gdb

from gdb_uffd.client.names.addresses import block_symbols
from gdb_uffd.client.session.asking import FAILURES, quiet, selected_arch
from gdb_uffd.client.session.code import behind_dummy, code_address
from gdb_uffd.client.show.text import without_parameters
from gdb_uffd.dataclass import dataclass

MAX_FRAMES = 1024
"""Frames of one thread that are looked at."""

LAST_FRAME_BYTES = 1 << 16
"""How far the outermost frame may reach; nothing tells."""

_SAVED = re.compile(r"(\w+) at (0x[0-9a-f]+)")


@dataclass(frozen=True)
class Local:
    """A variable of a frame.  `type` is None for a register that the frame keeps."""

    name: str
    address: int
    size: int
    type: Optional[gdb.Type]
    level: int
    function: str

    def holds(self, address: int) -> bool:
        """Whether one of its bytes is at `address`."""
        return self.address <= address < self.address + self.size


def locals_at(addresses: List[int]) -> List[Local]:
    """The variables of the selected thread's frames that hold one of the addresses (ascending);
    a register saved in the frame where no variable does."""
    found: List[Local] = []
    if not addresses:
        return found
    for frame, low, high in _extents(addresses[0], addresses[-1]):
        inside = [a for a in addresses if low <= a < high]
        if not inside:
            continue
        known = [v for v in _variables(frame) if any(v.holds(a) for a in inside)]
        if any(not any(v.holds(a) for v in known) for a in inside):
            known += [v for v in _saved(frame) if any(v.holds(a) for a in inside)]
        found += known
    return found


def _extents(first: int, last: int) -> Iterator["tuple[gdb.Frame, int, int]"]:
    """Each frame that may hold [first, last], with the stack that is its own."""
    frames = list(behind_dummy(MAX_FRAMES))
    low = -selected_arch().red_zone
    for frame, older in itertools.zip_longest(frames, frames[1:]):
        with contextlib.suppress(*FAILURES):
            low = int(frame.read_register("sp")) + min(low, 0)
            high = int(older.read_register("sp")) if older is not None else low + LAST_FRAME_BYTES
            if low > last:
                return
            if high > first:
                yield frame, low, high
        low = 0


def _function(frame: gdb.Frame) -> str:
    return without_parameters(frame.name() or "??")


def _variables(frame: gdb.Frame) -> Iterator[Local]:
    function, level = _function(frame), frame.level()
    seen: Set[int] = set()
    for symbol in block_symbols(code_address(frame)):
        if not (symbol.is_variable or symbol.is_argument) or not symbol.needs_frame:
            continue
        with contextlib.suppress(*FAILURES):
            value = symbol.value(frame)
            size = value.type.sizeof
            if value.address is None or not size or int(value.address) in seen:
                continue  # in a register, or optimised out
            seen.add(int(value.address))
            yield Local(symbol.name, int(value.address), size, value.type, level, function)


def _saved(frame: gdb.Frame) -> Iterator[Local]:
    """Where the frame keeps its caller's registers, and where it returns to."""
    arch = selected_arch()
    returns = arch.names[arch.pc if arch.link is None else arch.link]
    before, text = gdb.selected_frame(), ""
    with contextlib.suppress(*FAILURES):
        frame.select()
        text = quiet("info frame").partition("Saved registers:")[2]
    with contextlib.suppress(*FAILURES):
        before.select()
        for name, address in _SAVED.findall(text):
            if name != arch.names[arch.sp]:
                what = "return address" if name == returns else f"saved {name}"
                yield Local(what, int(address, 16), 8, None, frame.level(), _function(frame))
