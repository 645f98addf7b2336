"""Addresses as gdb's symbols name them: sections, variables, functions, lines."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import os
import re
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import gdb

from gdb_uffd.client.names import variables
from gdb_uffd.client.names.variables import Variable, address_of_name, evaluate_name
from gdb_uffd.client.session import sessions, skips
from gdb_uffd.client.session.asking import FAILURES, decoded, quiet
from gdb_uffd.client.session.code import blocks, file_of, function_name, line_at
from gdb_uffd.client.show.report_text import WriteSite
from gdb_uffd.client.show.text import without_parameters
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_calls import Extent
from gdb_uffd.protocol.model import FirstWrite, UffdError

MAX_CACHED = 100_000
"""Addresses whose symbol is remembered."""

NEAR = 4096
"""Bytes behind a symbol whose size nobody tells that are taken for its object's."""

_MARKS = frozenset(
    "__bss_start _edata edata _end end __data_start data_start __dso_handle __TMC_END__".split()
)
"""Symbols of the linker's that are at a border, not at an object."""

MAX_TLS_SYMBOLS = 256
"""Thread-locals of one source file that are asked for; each may cost a qGetTLSAddr packet."""

_SYMBOL = re.compile(r"^(.*?)(?: \+ (\d+))? in section (\S+)(?: of (.*))?$")
"""A line of `info symbol` (gdb manual, "Examining the Symbol Table")."""

MALLOC = re.compile(
    r"^(main_arena|mp_|tcache\w*|narenas|free_list|(free_)?list_lock|thread_arena|__curbrk"
    r"|perturb_byte)\b"
)
"""Variables of glibc's malloc (malloc/malloc.c, malloc/arena.c)."""

_ABI_TAG = re.compile(r"\[abi:\w+\]")

_NUMBERED = re.compile(r"\.\d+$")
"""How the compiler tells apart the static variables of functions: no name of the source."""

_FILE_SECTION = re.compile(r"^\s*(0x[0-9a-f]+) - (0x[0-9a-f]+) is (\S+)(?: in (.*))?$")
"""A line of `info files` (gdb manual, "Files")."""


@dataclass(frozen=True)
class _Place:
    """What `info symbol` knows of an address."""

    name: str = ""
    offset: int = 0
    section: str = ""


class _Cache:
    """Look-ups that stay true while the same object files are loaded."""

    def __init__(self) -> None:
        self.writers: Dict[Tuple[int, Tuple[int, ...]], WriteSite] = {}
        self.places: Dict[int, _Place] = {}
        self.sizes: Dict[int, Optional[int]] = {}
        self.variables: Dict[Tuple[str, int], Optional[Variable]] = {}
        self.thread_locals: Dict[str, List[gdb.Symbol]] = {}
        self.sections: Optional[Tuple[List[int], List[Tuple[int, str]]]] = None


_cache = _Cache()


def forget(_event: object = None) -> None:
    """Object files came or went."""
    global _cache
    _cache = _Cache()
    _same_file.cache_clear()
    variables.forget()
    skips.forget()


def _place(address: int) -> _Place:
    place = _cache.places.get(address)
    if place is None:
        if len(_cache.places) >= MAX_CACHED:
            _cache.places.clear()
        match = None
        with contextlib.suppress(*FAILURES):
            match = _SYMBOL.match(quiet(f"info symbol {address:#x}").split("\n", 1)[0])
        place = _Place()
        if match:
            name = re.sub(r"@@?[\w.]+$", "", match[1])  # a symbol's version is no part of its name
            if match[3].startswith(".got") and "@got" not in name:
                name += "@got"  # a slot that holds the address, not the function itself
            place = _Place(name, int(match[2] or 0), match[3])
        _cache.places[address] = place
    return place


def section(address: int) -> str:
    """The section that holds `address` (".data"), "" when no file has it there."""
    named = _place(address).section
    if named:
        return named
    # Without a symbol: by the list of sections, which is read once.
    if _cache.sections is None:
        rows = []
        for line in quiet("info files").splitlines():
            match = _FILE_SECTION.match(line)
            if match and match[3] != ".tbss":  # it has no place of its own (ELF, SHF_TLS)
                rows.append((int(match[1], 16), int(match[2], 16), match[3]))
        rows.sort()
        _cache.sections = ([row[0] for row in rows], [(row[1], row[2]) for row in rows])
    starts, rest = _cache.sections
    index = bisect.bisect_right(starts, address) - 1
    return rest[index][1] if index >= 0 and address < rest[index][0] else ""


def variable(address: int, pcs: Sequence[int] = (), only_known: bool = False) -> Optional[Variable]:
    """The variable at `address` by its linker symbol, with its type if that is known; where the
    linker's name is none of gdb's (a function's static variable), by the source files of `pcs`;
    without a type up to where the object ends.
    `only_known`: what was not looked up before is told by the linker's name."""
    place = _place(address)
    if not place.name:
        return None
    start = address - place.offset
    key = (place.name, start)
    if key not in _cache.variables and not only_known:
        _cache.variables[key] = _look_up(place.name, start)
    known = _cache.variables.get(key)
    if known is None and pcs and not only_known:
        known = variables.find_static(address, pcs)
    if known is not None and known.holds(address):
        return known
    if place.offset:
        size = _size_at(start)
        if size is None:
            size = known.size if known is not None else 0 if place.name in _MARKS else NEAR
        if place.offset >= size:
            return None
    return Variable(place.name, start, None)


def _size_at(start: int) -> Optional[int]:
    """The size of the object at a symbol, which gdb does not tell: of a name that has none itself
    (a version's) it takes all that lies behind."""
    if start not in _cache.sizes:
        session, found = sessions.selected(), None
        with contextlib.suppress(UffdError):
            found = session.request(Extent(start)) if session else None
        _cache.sizes[start] = found if found else None
    return _cache.sizes[start]


def _look_up(name: str, start: int) -> Optional[Variable]:
    for symbol in _candidates(name):
        if symbol is None or not symbol.is_variable or symbol.needs_frame:
            continue
        with contextlib.suppress(*FAILURES):
            value = symbol.value()
            if value.address is not None and int(value.address) == start and value.type.sizeof:
                text = expression_for(symbol.print_name, start, symbol.symtab)
                return Variable(text, start, value.type, value.type.sizeof)
    if "::" not in name:
        return None
    with contextlib.suppress(*FAILURES):
        named = evaluate_name(name)  # "f(int)::count", as the linker's name reads
        if named is not None and named.address is not None and int(named.address) == start:
            return Variable(name, start, named.type, named.type.sizeof)
    return None


def without_tags(name: str) -> str:
    """A name without the "[abi:cxx11]" that gdb's parser does not read."""
    return _ABI_TAG.sub("", name)


def _candidates(name: str) -> Iterator[Optional[gdb.Symbol]]:
    """Symbols of that name; the debug information may leave out what the linker's name has,
    "[abi:cxx11]"."""
    if _NUMBERED.search(name):
        return
    # gdb reads "a__b" as a name of Ada's, "a.b".
    names = list(dict.fromkeys((name, _ABI_TAG.sub("", name), name.replace(".", "__"))))
    for each in names:
        with contextlib.suppress(*FAILURES):
            yield from gdb.lookup_static_symbols(each)
    # Of a large program this takes gdb milliseconds where there is none of that name.
    for each in names:
        yield gdb.lookup_global_symbol(each)


def expression_for(name: str, address: int, symtab: Optional[gdb.Symtab] = None) -> str:
    """How gdb is asked for the variable `name` that lies at `address`: other files may have one of
    that name, and "(anonymous namespace)" is nothing that gdb's parser reads."""
    choices = [_ABI_TAG.sub("", name), name]
    if "(anonymous namespace)::" in name:
        choices = [name.replace("(anonymous namespace)::", ""), f"'{name}'"]
    if symtab is not None:
        choices.append(f"'{os.path.basename(file_of(symtab))}'::{name}")
        choices.append(f"'{file_of(symtab)}'::{name}")
    return next((choice for choice in choices if address_of_name(choice) == address), name)


def block_symbols(pc: int) -> Iterator[gdb.Symbol]:
    """Symbols of the blocks around `pc`, up to and including its function's."""
    for block in blocks(pc):
        yield from block


def function(pc: int) -> str:
    """The name of the function that holds `pc`, without its parameters; "" for none."""
    return without_parameters(function_name(pc) or _place(pc).name)


def _with_line(pc: int) -> Optional[WriteSite]:
    where = line_at(pc)
    return WriteSite(function(pc), where.path(), where.line) if where.path() else None


def writer(first: FirstWrite) -> WriteSite:
    """Function and line of a first write, and the program's own caller where it is none of its."""
    key = (first.pc, first.callers)
    if key not in _cache.writers:
        _cache.writers[key] = _writer(first)
    return _cache.writers[key]


def follow_skips() -> None:
    """The user may skip other functions and files than before."""
    if skips.changed():
        _cache.writers.clear()


def _writer(first: FirstWrite) -> WriteSite:
    here = _with_line(first.pc) or WriteSite(function(first.pc))
    own = next(filter(None, map(skips.own_frame, first.pcs)), None)
    if own is None and not here.line:
        own = next(filter(None, map(_with_line, first.pcs[1:])), None)
    return here if own == here else dataclasses.replace(here, caller=own)


def _of_program(symtab: gdb.Symtab) -> bool:
    """Whether a source file is one of the executable, not of a library."""
    space = gdb.current_progspace()
    if space is None:
        return False
    program = decoded(lambda: space.filename)
    return bool(program) and _same_file(decoded(lambda: symtab.objfile.filename), program)


_same_file = functools.lru_cache(maxsize=256)(skips.same_file)


def likely(function: int) -> Optional[FirstWrite]:
    """A writer where none is known: the function that gdb called, and malloc, which many call."""
    malloc = variables.address_of_name("malloc")
    pcs = [pc for pc in (function, malloc) if pc]
    return FirstWrite(pcs[0], 0, 0, tuple(pc + 1 for pc in pcs[1:])) if pcs else None


def thread_locals(first: FirstWrite) -> Iterator[gdb.Symbol]:
    """Thread-locals of the source files of `first` and its callers, the program's own first."""
    # A function's own static thread-locals are in its blocks, not in the file's.
    yield from (symbol for symbol in block_symbols(first.pc) if maybe_tls(symbol))
    symtabs: Dict[str, gdb.Symtab] = {}
    for pc in first.pcs:
        symtab = line_at(pc).symtab
        if symtab is not None:
            symtabs.setdefault(file_of(symtab), symtab)
    for name, symtab in sorted(symtabs.items(), key=lambda item: not _of_program(item[1])):
        if name not in _cache.thread_locals:
            _cache.thread_locals[name] = _tls_symbols(symtab)
        yield from _cache.thread_locals[name]


def maybe_tls(symbol: gdb.Symbol) -> bool:
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
            if len(found) < MAX_TLS_SYMBOLS and maybe_tls(symbol):
                found.append(symbol)
    return found
