"""Which frames are passed over to find the program's own line: those of libraries, of the
compiler's headers, and what the user's `skip` names (gdb manual, "Skipping Over Functions and
Files")."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import re
from typing import List, NamedTuple, Optional, Tuple

import gdb

from gdb_uffd.client.session.asking import FAILURES, decoded, quiet
from gdb_uffd.client.session.code import SourceLine, blocks, file_of, line_at
from gdb_uffd.client.show.report_text import WriteSite
from gdb_uffd.client.show.text import without_parameters

_HEADERS = re.compile(
    r"^/usr/include/|^/usr/local/include/|/include/c\+\+/"  # gcc and clang -v: where they look
    r"|/lib(32|64)?/(gcc|clang|llvm-[^/]+/lib/clang)/[^/]+/([^/]+/)?include/"
    r"|^/rustc/[0-9a-f]+/library/"  # how rustc names its standard library
)

_SYSTEM = re.compile(r"^/(usr/)?lib(32|64|x32|exec)?/")  # file-hierarchy(7)

_RUNTIME = re.compile(
    r"/(ld(-linux[^/]*)?|lib(c|pthread|m|rt|dl|gcc_s|stdc\+\+|c\+\+|c\+\+abi|unwind|[alth]+w?asan))"
    r"[-.][^/]*$"
)
"""Libraries of the language, wherever they lie."""

_ROW = re.compile(r"^\d+\s+([yn])\s+([yn])\s+(.*?)\s+([yn])\s+(.*?)\s*$")
"""A line of `info skip`: enabled, whether the file is a pattern, the file, whether the function is
a regular expression, the function."""

_NONE = "<none>"


class _Skip(NamedTuple):
    file: str
    is_glob: bool
    function: str
    is_regexp: bool

    def matches(self, file: str, function: str) -> bool:
        return self._has_file(file) and self._has_function(function)

    def _has_file(self, file: str) -> bool:
        if self.file == _NONE:
            return True
        if self.is_glob:
            name = file if "/" in self.file else os.path.basename(file)
            return fnmatch.fnmatchcase(name, self.file)
        return file == self.file or file.endswith("/" + self.file.lstrip("/"))

    def _has_function(self, function: str) -> bool:
        if self.function == _NONE:
            return True
        if not self.is_regexp:
            return self.function in (function, without_parameters(function))
        try:
            return re.search(self.function, function) is not None
        except re.error:
            return False  # of the other syntax


_read: Tuple[str, List[_Skip]] = ("", [])


def changed() -> bool:
    """Read what the user skips; whether that is something else than it was."""
    global _read
    text = quiet("info skip")
    if text == _read[0]:
        return False
    rows = [match for match in map(_ROW.match, text.splitlines()) if match and match[1] == "y"]
    _read = (text, [_Skip(row[3], row[2] == "y", row[5], row[4] == "y") for row in rows])
    return True


@functools.lru_cache(maxsize=256)
def _is_library(name: str, program: str, sysroot: str) -> bool:
    if same_file(name, program):
        return False
    if sysroot and name.startswith(sysroot):
        name = "/" + name[len(sysroot) :].lstrip("/")
    return bool(_SYSTEM.match(name) or _RUNTIME.search(name))


def _of_library(symtab: gdb.Symtab) -> bool:
    space = gdb.current_progspace()
    program = decoded(lambda: space.filename) if space is not None else ""
    objfile = symtab.objfile.owner or symtab.objfile  # debug information may lie beside it
    return _is_library(
        decoded(lambda: objfile.filename), program, str(gdb.parameter("sysroot") or "")
    )


def same_file(one: str, other: str) -> bool:
    """Whether two names lead to one place."""
    # As bytes: Python's own encoding of names may be ASCII inside gdb (LC_ALL=C, gdb 12).
    paths = [os.path.realpath(name.encode("utf-8", "surrogateescape")) for name in (one, other)]
    return paths[0] == paths[1]


def is_own(function: str, symtab: Optional[gdb.Symtab]) -> bool:
    """Whether a function whose line is in `symtab` is the program's own, and not skipped."""
    if symtab is None or _of_library(symtab):
        return False
    file = decoded(symtab.fullname) or file_of(symtab)
    if _HEADERS.search(file) or _HEADERS.search(file_of(symtab)):
        return False
    return not any(skip.matches(file, function) for skip in _read[1])


class Around(NamedTuple):
    """A function around an address, inlined or not, and where it stands there (0: no line)."""

    start: int
    end: int
    name: str
    where: SourceLine


def functions_around(pc: int) -> List[Around]:
    """Those inlined at `pc`, innermost first, and the function itself."""
    found: List[Around] = []
    with contextlib.suppress(*FAILURES):
        where = line_at(pc)
        for block in blocks(pc):
            function = block.function
            if function is not None:
                name = str(function.print_name)
                found.append(Around(block.start, block.end, name, where))
                # Of an inlined function gdb has the place of the call (dwarf2/read.c, new_symbol:
                # DW_AT_call_file, DW_AT_call_line).
                where = SourceLine(function.symtab, function.line)
    return found


def own_frame(pc: int) -> Optional[WriteSite]:
    """The innermost function of the program's own that has `pc`, inlined or not, and its line
    there; None where it has none."""
    for each in functions_around(pc):
        if each.where.line and is_own(each.name, each.where.symtab):
            return WriteSite(without_parameters(each.name), each.where.path(), each.where.line)
    return None


def forget() -> None:
    """Object files came or went."""
    _is_library.cache_clear()
