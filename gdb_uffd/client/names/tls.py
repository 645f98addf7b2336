"""Thread-local variables at an address."""

from __future__ import annotations

import contextlib
import re
from typing import Iterator, List, Optional

import gdb

from gdb_uffd.client.names import addresses, variables
from gdb_uffd.client.names.variables import Variable
from gdb_uffd.client.session.asking import FAILURES, quiet, selected_arch
from gdb_uffd.client.session.code import file_of
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.threads import in_thread
from gdb_uffd.protocol.model import THREAD_CONTROL, DirtyRange, FirstWrite

STATIC_TLS_BYTES = 1 << 20
"""Thread-locals within this distance below the thread pointer are static TLS, whose address
is fixed for the thread (ELF TLS, variant II)."""

CONTROL_NAME = "struct pthread"
"""Its name where its type is not known."""


class ThreadLocals:
    """Look-ups for one report."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(
        self, run: DirtyRange, tid: Optional[int], first: Optional[FirstWrite]
    ) -> Optional[Variable]:
        """The thread-local that holds the run's first byte, in the thread `tid`."""
        named: Optional[Variable] = None
        if run.symbol:
            named = self._named(run.symbol, run.symbol_start)
            if named.type is not None:
                return named
        if first is not None:
            with in_thread(tid):
                for known in self._of_files(first, tid or 0):
                    if known.holds(run.address):
                        return known
        return named

    def _named(self, linker_name: str, start: int) -> Variable:
        """A thread-local by its name in the ELF file."""
        if linker_name == THREAD_CONTROL:
            with contextlib.suppress(*FAILURES):
                type_ = gdb.lookup_type("struct pthread")
                return Variable(f"(*(struct pthread *) {start:#x})", start, type_, type_.sizeof)
            return Variable(CONTROL_NAME, start, None)
        name = _demangled(linker_name)
        candidates: List[Optional[gdb.Symbol]] = []
        for each in dict.fromkeys((name, re.sub(r"\.\d+$", "", name))):
            candidates.append(gdb.lookup_global_symbol(each))
            with contextlib.suppress(*FAILURES):
                candidates += gdb.lookup_static_symbols(each)
        for symbol in candidates:
            if symbol is not None and addresses.maybe_tls(symbol) and symbol.type is not None:
                size = symbol.type.sizeof
                text = addresses.without_tags(str(symbol.print_name))
                return Variable(text, start, symbol.type, size)
        value = variables.evaluate_name(name)
        with contextlib.suppress(*FAILURES):
            if value is not None and value.type.sizeof and value.address is not None:
                return Variable(name, start, value.type, value.type.sizeof)
        return Variable(name, start, None)

    def _of_files(self, first: FirstWrite, tid: int) -> Iterator[Variable]:
        """Thread-locals of the writer's source files, at their addresses in the selected thread."""
        known = self._session.tls_addresses
        pointer: Optional[int] = None
        for symbol in addresses.thread_locals(first):
            key = (tid, file_of(symbol.symtab), symbol.linkage_name)
            if symbol.type is None or not symbol.type.sizeof:
                continue
            size = symbol.type.sizeof
            if key not in known:
                with contextlib.suppress(*FAILURES):
                    where = symbol.value().address
                    if where is None:
                        continue
                    address = int(where)
                    if pointer is None:
                        pointer = thread_pointer()
                    if abs(pointer - address) >= STATIC_TLS_BYTES:
                        # A block that a call may allocate anew, elsewhere: not to be remembered.
                        name = addresses.without_tags(str(symbol.print_name))
                        yield Variable(name, address, symbol.type, size)
                        continue
                    known[key] = address
            if key in known:
                name = addresses.without_tags(str(symbol.print_name))
                yield Variable(name, known[key], symbol.type, size)


def thread_pointer() -> int:
    """What the selected thread's static thread-locals are addressed by.  gdb.error."""
    arch = selected_arch()
    register = arch.names[arch.thread_pointer]
    return int(gdb.parse_and_eval(f"(unsigned long) ${register}"))


def _demangled(name: str) -> str:
    if not re.fullmatch(r"_Z\w+", name):
        return name
    with contextlib.suppress(*FAILURES):
        return quiet(f"demangle -- {name}").strip() or name
    return name
