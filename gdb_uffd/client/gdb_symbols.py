"""What gdb's symbols tell about dirty pages: the Namer of render.py."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import os
import re
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Set, Tuple

import gdb

from gdb_uffd.client import gdb_values
from gdb_uffd.client.gdb_session import Session
from gdb_uffd.client.gdb_util import quiet
from gdb_uffd.client.render import Change, Writer
from gdb_uffd.client.wire import Image, parse_image
from gdb_uffd.model import DirtyPage, FirstWrite, page_floor

MAX_CALLERS = 16
"""Return addresses looked up for a place without line information."""

MAX_TLS_SYMBOLS = 256
"""Thread-locals of one source file that are asked for; each may cost a qGetTLSAddr packet."""

STATIC_TLS_BYTES = 1 << 20
"""Thread-locals within this distance below the thread pointer are static TLS, whose address
is fixed for the thread (ELF TLS, variant II)."""

MAX_OBJECT_BYTES = 1 << 20
"""A larger variable is not read whole; its members are still told by offset."""

_SYMBOL = re.compile(r"^(.*?)(?: \+ (\d+))? in section (\S+)(?: of (.*))?$")
"""A line of `info symbol` (gdb manual, "Examining the Symbol Table")."""

_FILE_SECTION = re.compile(r"^\s*(0x[0-9a-f]+) - (0x[0-9a-f]+) is (\S+)(?: in (.*))?$")
"""A line of `info files` (gdb manual, "Files")."""


@dataclass(frozen=True)
class _Variable:
    name: str
    address: int
    type: Optional[gdb.Type]  # None without debug information


@dataclass(frozen=True)
class _Place:
    """What `info symbol` knows of an address."""

    name: str = ""
    offset: int = 0
    section: str = ""


class Cache:
    """Look-ups that stay true while the same object files are loaded."""

    def __init__(self) -> None:
        self.writers: Dict[Tuple[int, Tuple[int, ...]], Writer] = {}
        self.places: Dict[int, _Place] = {}
        self.variables: Dict[Tuple[str, int], Optional[_Variable]] = {}
        self.tls: Dict[str, List[gdb.Symbol]] = {}
        self.sections: Optional[Tuple[List[int], List[Tuple[int, str]]]] = None


_cache = Cache()


def forget(_event: object = None) -> None:
    """Object files came or went."""
    global _cache
    _cache = Cache()


class Symbols:
    """Names for one report of `session`; `which_all` as in quffd.image."""

    def __init__(self, session: Session, which_all: bool = False) -> None:
        self._session = session
        self._all = which_all
        self._images: Dict[int, Optional[Image]] = {}
        self._changes: Dict[int, List[Change]] = {}

    def section(self, page: DirtyPage) -> str:
        """The section of the page's first change, by its symbol or by `info files`."""
        address = page.runs[0].address if page.runs else page.start
        return _place(address).section or _section(address)

    def thread(self, tid: int) -> str:
        """gdb's number for that thread, else "TID n"."""
        number = self._session.thread_numbers.get(tid)
        return f"TID {tid}" if number is None else str(number)

    def writer(self, first: FirstWrite) -> Writer:
        """Function and line of the first write; with the caller that has a line, if it has none."""
        key = (first.pc, first.callers)
        if key not in _cache.writers:
            _cache.writers[key] = _writer(first)
        return _cache.writers[key]

    def changes(self, page: DirtyPage) -> List[Change]:
        """Variables whose bytes changed on this page, members by name."""
        if page.start not in self._changes:
            try:
                found = self._tls(page) if page.kind == "tls" else self._data(page)
            except gdb.error:
                found = []  # symbols of a damaged file: the bytes are still told
            self._changes[page.start] = found
        return self._changes[page.start]

    def _data(self, page: DirtyPage) -> List[Change]:
        found: List[Change] = []
        done_until = 0
        for run in page.runs:
            changed = (
                run.address + i for i, (x, y) in enumerate(zip(run.before, run.after)) if x != y
            )
            for address in changed:
                if address < done_until or len(found) >= gdb_values.MAX_CHANGES:
                    continue
                variable = self._static(page, address) or _variable(address)
                if variable is None:
                    continue
                if variable.type is None:
                    found.append(Change(variable.name, "", "", "", run_length(page, address)))
                    done_until = run.address + len(run.after)
                    continue
                found += self._of(variable, page)
                done_until = variable.address + variable.type.sizeof
        return found

    def _of(self, variable: _Variable, page: DirtyPage) -> List[Change]:
        """The changed scalars of `variable` that lie on `page`."""
        assert variable.type is not None
        changes: List[Change] = []
        for leaf in gdb_values.leaves(
            variable.name, variable.type, variable.address, changed_addresses(page)
        ):
            if leaf.size > MAX_OBJECT_BYTES or len(changes) >= gdb_values.MAX_CHANGES:
                break
            before = self._bytes(page, leaf.address, leaf.size, False)
            after = self._bytes(page, leaf.address, leaf.size, True)
            if before is None or after is None or before == after:
                continue
            changes.append(gdb_values.change(leaf, before, after))
        return changes

    def _bytes(self, page: DirtyPage, address: int, size: int, after: bool) -> Optional[bytes]:
        """The bytes of an object before or after; None when some cannot be had.

        The report holds what lies around a change; larger objects come page by page.
        """
        for run in page.around:
            if run.address <= address and address + size <= run.address + len(run.before):
                content = run.after if after else run.before
                return content[address - run.address : address - run.address + size]
        data = b""
        while len(data) < size:
            at = address + len(data)
            start = page_floor(at)
            if start not in self._images:
                arguments = {"address": hex(start), "all": self._all}
                self._images[start] = parse_image(self._session.request("image", arguments))
            image = self._images[start]
            if image is None:  # this part of the object was not written: as it is now
                chunk = min(size - len(data), start + 4096 - at)
                data += bytes(gdb.selected_inferior().read_memory(at, chunk))
                continue
            content = image.after if after else image.before
            part = content[at - image.start : at - image.start + size - len(data)]
            if not part:
                return None
            data += part
        return data

    def _static(self, page: DirtyPage, address: int) -> Optional[_Variable]:
        """A static local of the function that wrote first; its linker symbol is no name."""
        if page.first_write is None:
            return None
        for symbol in _block_symbols(page.first_write.pc):
            if symbol.is_variable and symbol.addr_class == gdb.SYMBOL_LOC_STATIC:
                value = symbol.value()
                if value.address is None or value.type.sizeof == 0:
                    continue
                start = int(value.address)
                if start <= address < start + value.type.sizeof:
                    return _Variable(symbol.name, start, symbol.type)
        return None

    def _tls(self, page: DirtyPage) -> List[Change]:
        """Thread-locals of the source files that the first write's frames lie in."""
        if page.first_write is None or not page.runs:
            return []
        found: List[Change] = []
        addresses = changed_addresses(page)
        with _in_thread(page.thread):
            for variable in self._tls_variables(page.first_write, page.thread or 0):
                assert variable.type is not None
                end = variable.address + variable.type.sizeof
                if any(variable.address <= a < end for a in addresses):
                    found += self._of(variable, page)
        return found

    def _tls_variables(self, first: FirstWrite, tid: int) -> Iterator[_Variable]:
        """Thread-locals at their addresses in the thread `tid`, which is selected."""
        known = self._session.tls_addresses
        pointer: Optional[int] = None
        for symbol in _tls_candidates(first):
            key = (tid, symbol.symtab.filename, symbol.linkage_name)
            if symbol.type is None or not symbol.type.sizeof:
                continue
            if key not in known:
                with contextlib.suppress(gdb.error):
                    where = symbol.value().address
                    if where is None:
                        continue
                    address = int(where)
                    if pointer is None:
                        pointer = int(gdb.parse_and_eval("(unsigned long) $fs_base"))
                    if not 0 <= pointer - address < STATIC_TLS_BYTES:
                        # A block that a call may allocate anew, elsewhere: not to be remembered.
                        yield _Variable(symbol.print_name, address, symbol.type)
                        continue
                    known[key] = address
            if key in known:
                yield _Variable(symbol.print_name, known[key], symbol.type)


def changed_addresses(page: DirtyPage) -> List[int]:
    """Addresses of the changed bytes that the report lists, ascending."""
    return [
        run.address + i
        for run in page.runs
        for i, (x, y) in enumerate(zip(run.before, run.after))
        if x != y
    ]


def run_length(page: DirtyPage, address: int) -> int:
    """Bytes from `address` to the end of the run that holds it."""
    for run in page.runs:
        if run.address <= address < run.address + len(run.after):
            return run.address + len(run.after) - address
    return 0


def _place(address: int) -> _Place:
    place = _cache.places.get(address)
    if place is None:
        match = None
        with contextlib.suppress(gdb.error):
            match = _SYMBOL.match(quiet(f"info symbol {address:#x}").split("\n", 1)[0])
        place = _Place()
        if match:
            name = re.sub(r"@@?[\w.]+$", "", match[1])  # a symbol's version is no part of its name
            place = _Place(name, int(match[2] or 0), match[3])
        _cache.places[address] = place
    return place


def _section(address: int) -> str:
    """The section that holds `address`, from `info files` (read once)."""
    if _cache.sections is None:
        rows = []
        for line in quiet("info files").splitlines():
            match = _FILE_SECTION.match(line)
            if match:
                rows.append((int(match[1], 16), int(match[2], 16), match[3]))
        rows.sort()
        _cache.sections = ([row[0] for row in rows], [(row[1], row[2]) for row in rows])
    starts, rest = _cache.sections
    index = bisect.bisect_right(starts, address) - 1
    return rest[index][1] if index >= 0 and address < rest[index][0] else ""


def _variable(address: int) -> Optional[_Variable]:
    """The variable at `address` by its linker symbol, with its type if that is known."""
    place = _place(address)
    if not place.name:
        return None
    start = address - place.offset
    key = (place.name, start)
    if key not in _cache.variables:
        _cache.variables[key] = _look_up(place.name, start)
    variable = _cache.variables[key]
    if variable is not None and variable.type is not None:
        inside = address < variable.address + variable.type.sizeof
        return variable if inside else _Variable(f"{place.name}+{place.offset:#x}", address, None)
    return _Variable(f"{place.name}+{place.offset:#x}" if place.offset else place.name, start, None)


def _look_up(name: str, start: int) -> Optional[_Variable]:
    plain = name.split("(", 1)[0].strip() or name
    candidates: List[Optional[gdb.Symbol]] = [gdb.lookup_global_symbol(plain)]
    with contextlib.suppress(gdb.error):
        candidates += gdb.lookup_static_symbols(plain)
    for symbol in candidates:
        if symbol is None or not symbol.is_variable or symbol.needs_frame:
            continue
        with contextlib.suppress(gdb.error):
            value = symbol.value()
            if value.address is not None and int(value.address) == start and value.type.sizeof:
                return _Variable(symbol.print_name, start, value.type)
    return None


def _block_symbols(pc: int) -> Iterator[gdb.Symbol]:
    """Symbols of the blocks around `pc`, up to and including its function's."""
    with contextlib.suppress(gdb.error, RuntimeError):
        block: Optional[gdb.Block] = gdb.block_for_pc(pc)
        while block is not None and not block.is_global and not block.is_static:
            yield from block
            block = block.superblock


def _function(pc: int) -> str:
    with contextlib.suppress(gdb.error, RuntimeError):
        block: Optional[gdb.Block] = gdb.block_for_pc(pc)
        while block is not None and block.function is None:
            block = block.superblock
        if block is not None and block.function is not None:
            # A parameter list would repeat what "()" says.
            return str(block.function.print_name).split("(", 1)[0]
    place = _place(pc)
    return place.name.split("(", 1)[0]


def _with_line(pc: int) -> Optional[Writer]:
    sal = gdb.find_pc_line(pc)
    if sal.symtab is None or not sal.line:
        return None
    return Writer(_function(pc), sal.symtab.fullname() or sal.symtab.filename, sal.line)


def _writer(first: FirstWrite) -> Writer:
    here = _with_line(first.pc) or Writer(_function(first.pc))
    if here.line and _in_program(first.pc):
        return here
    # A return address may be the first of the next line: the call lies one byte before it.
    callers = [address - 1 for address in first.callers[:MAX_CALLERS] if address]
    # In a library with line information it is still the program's own line that one looks for.
    candidates = [pc for pc in callers if _in_program(pc)] + ([] if here.line else callers)
    found = (_with_line(pc) for pc in candidates)
    return dataclasses.replace(here, caller=next((c for c in found if c is not None), None))


def _in_program(pc: int) -> bool:
    """Whether `pc` lies in the executable itself, not in a library."""
    space = gdb.current_progspace()
    symtab = gdb.find_pc_line(pc).symtab
    if space is None or symtab is None:
        return False
    return os.path.realpath(symtab.objfile.filename or "") == os.path.realpath(space.filename or "")


def _tls_candidates(first: FirstWrite) -> Iterator[gdb.Symbol]:
    """Thread-locals of the source files of `first` and its callers."""
    # A function's own static thread-locals are in its blocks, not in the file's.
    yield from (symbol for symbol in _block_symbols(first.pc) if _maybe_tls(symbol))
    seen: Set[str] = set()
    for pc in (first.pc, *(address - 1 for address in first.callers[:MAX_CALLERS] if address)):
        symtab = gdb.find_pc_line(pc).symtab
        if symtab is None or symtab.filename in seen:
            continue
        seen.add(symtab.filename)
        if symtab.filename not in _cache.tls:
            _cache.tls[symtab.filename] = _tls_symbols(symtab)
        yield from _cache.tls[symtab.filename]


def _maybe_tls(symbol: gdb.Symbol) -> bool:
    """gdb has no class for thread-locals: they are "computed" and need no frame."""
    return (
        symbol.is_variable
        and symbol.addr_class == gdb.SYMBOL_LOC_COMPUTED
        and not symbol.needs_frame
    )


def _tls_symbols(symtab: gdb.Symtab) -> List[gdb.Symbol]:
    found: List[gdb.Symbol] = []
    for block in (symtab.global_block(), symtab.static_block()):
        for symbol in block:
            if len(found) < MAX_TLS_SYMBOLS and _maybe_tls(symbol):
                found.append(symbol)
    return found


@contextlib.contextmanager
def _in_thread(tid: Optional[int]) -> Iterator[None]:
    """With the thread of that TID selected; thread and frame are as they were afterwards."""
    before = gdb.selected_thread()
    if tid is None or before is None or tid in before.ptid[1:]:
        yield
        return
    frame = gdb.selected_frame()
    for thread in gdb.selected_inferior().threads():
        if tid in thread.ptid[1:]:
            thread.switch()
    try:
        yield
    finally:
        before.switch()
        if frame.is_valid():
            frame.select()
