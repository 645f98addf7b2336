"""What gdb's symbols tell about dirty pages: the Namer of render.py."""

from __future__ import annotations

import contextlib
from typing import Dict, Iterator, List, Optional

import gdb

from gdb_uffd.client import gdb_places, gdb_values
from gdb_uffd.client.gdb_places import Variable
from gdb_uffd.client.gdb_session import Session
from gdb_uffd.client.gdb_util import file_of
from gdb_uffd.client.render import Change, Writer
from gdb_uffd.client.wire import Image, parse_image
from gdb_uffd.model import DirtyPage, FirstWrite, page_floor

STATIC_TLS_BYTES = 1 << 20
"""Thread-locals within this distance below the thread pointer are static TLS, whose address
is fixed for the thread (ELF TLS, variant II)."""

MAX_TOLD = 4000
"""Named changes of one report; a symbol look-up costs some 20 µs."""


class Symbols:
    """Names for one report of `session`; `which_all` as in quffd.image."""

    def __init__(self, session: Session, which_all: bool = False) -> None:
        self._session = session
        self._all = which_all
        self._images: Dict[int, Optional[Image]] = {}
        self._changes: Dict[int, List[Change]] = {}
        self._told = 0

    def section(self, page: DirtyPage) -> str:
        """The section of the page's first change, by its symbol or by `info files`."""
        first = page.first_write
        unchanged = first.address if first is not None and first.address else page.start
        address = page.runs[0].address if page.runs else unchanged
        return gdb_places.section(address)

    def thread(self, tid: int) -> str:
        """gdb's number for that thread, else "TID n"."""
        number = self._session.thread_numbers.get(tid)
        return f"TID {tid}" if number is None else str(number)

    def writer(self, first: FirstWrite) -> Writer:
        """Function and line of the first write; with the caller that has a line, if it has none."""
        return gdb_places.writer(first)

    def changes(self, page: DirtyPage) -> List[Change]:
        """Variables whose bytes changed on this page, members by name."""
        if page.start not in self._changes:
            if self._told >= MAX_TOLD:
                return []
            try:
                found = self._tls(page) if page.kind == "tls" else self._data(page)
            except gdb.error:
                found = []  # symbols of a damaged file: the bytes are still told
            self._changes[page.start] = found
            self._told += len(found)
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
                variable = self._static(page, address) or gdb_places.variable(address)
                if variable is None:
                    continue
                if variable.type is None:
                    found.append(Change(variable.name, "", "", "", run_length(page, address)))
                    done_until = run.address + len(run.after)  # one entry a run
                    continue
                found += self._of(variable, page)
                done_until = variable.address + variable.type.sizeof
        return found

    def _of(self, variable: Variable, page: DirtyPage) -> List[Change]:
        """The changed scalars of `variable` that lie on `page`."""
        assert variable.type is not None
        changes: List[Change] = []
        for leaf in gdb_values.leaves(
            variable.name, variable.type, variable.address, changed_addresses(page)
        ):
            if len(changes) >= gdb_values.MAX_CHANGES:
                break
            if leaf.size > gdb_values.largest():
                changes.append(gdb_values.only_bytes(leaf, changed_addresses(page)))
                continue
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
                self._images[start] = self.image(start)
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

    def image(self, start: int) -> Optional[Image]:
        """The page at `start` before and after; None when it was not written."""
        arguments = {"address": hex(start), "all": self._all}
        return parse_image(self._session.request("image", arguments))

    def _static(self, page: DirtyPage, address: int) -> Optional[Variable]:
        """A static local of the function that wrote first; its linker symbol is no name."""
        if page.first_write is None:
            return None
        for symbol in gdb_places.block_symbols(page.first_write.pc):
            if symbol.is_variable and symbol.addr_class == gdb.SYMBOL_LOC_STATIC:
                value = symbol.value()
                if value.address is None or value.type.sizeof == 0:
                    continue
                start = int(value.address)
                if start <= address < start + value.type.sizeof:
                    return Variable(symbol.name, start, symbol.type)
        return None

    def _tls(self, page: DirtyPage) -> List[Change]:
        """Thread-locals of the source files that the first write's frames lie in."""
        if page.first_write is None or not page.runs:
            return []
        found: List[Change] = []
        addresses = changed_addresses(page)
        with _in_thread(page.thread):
            seen = set()
            for variable in self._tls_variables(page.first_write, page.thread or 0):
                assert variable.type is not None
                if variable.address in seen:
                    continue  # one variable that several source files declare
                seen.add(variable.address)
                end = variable.address + variable.type.sizeof
                if any(variable.address <= a < end for a in addresses):
                    found += self._of(variable, page)
        return found

    def _tls_variables(self, first: FirstWrite, tid: int) -> Iterator[Variable]:
        """Thread-locals at their addresses in the thread `tid`, which is selected."""
        known = self._session.tls_addresses
        pointer: Optional[int] = None
        for symbol in gdb_places.thread_locals(first):
            key = (tid, file_of(symbol.symtab), symbol.linkage_name)
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
                        yield Variable(symbol.print_name, address, symbol.type)
                        continue
                    known[key] = address
            if key in known:
                yield Variable(symbol.print_name, known[key], symbol.type)


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
