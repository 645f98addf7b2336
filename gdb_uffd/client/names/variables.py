"""Variables in memory, the static ones of functions too, and expressions that are only names."""

from __future__ import annotations

import contextlib
import re
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

import gdb

from gdb_uffd.client.session.asking import FAILURES, setting
from gdb_uffd.client.session.code import blocks, file_of, line_at
from gdb_uffd.client.show.text import without_parameters
from gdb_uffd.dataclass import dataclass

MAX_LINES = 20_000
"""Line table entries of one source file that are looked at for blocks."""

MAX_STATICS = 2_000
"""Static variables of one source file's functions that are remembered."""

_NAME = re.compile(r"('[^'\"\\]*'(::)?)?[\w$:<>,&* ()~]*")
"""What may stand in a name that is evaluated: nothing that assigns; calls are forbidden anyway."""


@dataclass(frozen=True)
class Variable:
    """A variable in memory; `type` is None without debug information for it.  `name` is an
    expression that gdb reads, where there is one."""

    name: str
    address: int
    type: Optional[gdb.Type]
    size: int = 0

    def holds(self, address: int) -> bool:
        """Whether one of its bytes is at `address`."""
        return self.address <= address < self.address + self.size

    def at(self, address: int) -> str:
        """Its name for the byte at `address`: with the offset where no type tells of members."""
        offset = address - self.address
        return self.name if self.type is not None or not offset else f"{self.name}+{offset:#x}"


_forbidden: List[bool] = []
"""Not empty while `no_calls` lasts."""


@contextlib.contextmanager
def no_calls() -> Iterator[None]:
    """gdb calls nothing in the inferior meanwhile, as it would for the address of an array that
    lies in no memory (it then asks for some, with malloc), or for a printer."""
    if _forbidden:
        yield
        return
    with setting("may-call-functions", "off"):
        _forbidden.append(True)
        try:
            yield
        finally:
            _forbidden.clear()


def evaluate_name(name: str) -> Optional[gdb.Value]:
    """The variable that gdb's parser takes `name` for; None for none.

    Names come from the debugged files and may be anything, so nothing is called or assigned.
    """
    if not _NAME.fullmatch(name):
        return None
    with no_calls(), contextlib.suppress(*FAILURES):
        return gdb.parse_and_eval(name)
    return None


def address_of_name(name: str) -> Optional[int]:
    """Where that variable lies; None when it is none, or not in memory."""
    value = evaluate_name(name)
    with no_calls(), contextlib.suppress(*FAILURES):
        if value is not None and value.address is not None:
            return int(value.address)
    return None


_statics: Dict[str, List[Variable]] = {}


def forget() -> None:
    """Object files came or went."""
    _statics.clear()


def find_static(address: int, pcs: Sequence[int]) -> Optional[Variable]:
    """The static variable of a function, at `address`, in the source files of `pcs`."""
    seen: Set[str] = set()
    for pc in pcs:
        symtab = line_at(pc).symtab
        if symtab is None or file_of(symtab) in seen:
            continue
        name = file_of(symtab)
        seen.add(name)
        if name not in _statics:
            _statics[name] = list(_of_file(symtab))
        for variable in _statics[name]:
            if variable.holds(address):
                return variable
    return None


def _of_file(symtab: gdb.Symtab) -> Iterator[Variable]:
    """The static variables of all functions of a source file, those of inner blocks included."""
    seen: Set[_BlockKey] = set()
    count, last = 0, -1
    table = symtab.linetable()
    if table is None:
        return
    for index, entry in enumerate(table):
        if index >= MAX_LINES or count >= MAX_STATICS:
            return
        if entry.pc == last:
            continue
        last = entry.pc
        for variable in _around(entry.pc, seen):
            count += 1
            yield variable


_BlockKey = Tuple[int, int, bool, int, int]


def _key(block: gdb.Block) -> _BlockKey:
    """Tells the blocks of one file apart: an inner block may cover as much as that around it."""
    outer = block.superblock
    around = (0, 0) if outer is None else (outer.start, outer.end)
    return (block.start, block.end, block.function is None, *around)


def _around(pc: int, seen: Set[_BlockKey]) -> Iterator[Variable]:
    """Those of the blocks around `pc` that were not `seen` yet."""
    found: List[gdb.Symbol] = []
    for block in blocks(pc):
        key = _key(block)
        if key not in seen:
            found += [s for s in block if s.is_variable and s.addr_class == gdb.SYMBOL_LOC_STATIC]
            seen.add(key)
        elif not found:
            return  # those around it were looked at with it
        if block.function is not None:
            name = without_parameters(str(block.function.print_name))
            for symbol in found:
                with contextlib.suppress(*FAILURES):
                    value = symbol.value()
                    size = value.type.sizeof
                    if value.address is not None and size:
                        full = f"{name}::{symbol.name}"
                        yield Variable(full, int(value.address), value.type, size)
            return
