"""What gdb's symbols and its unwinder tell of code: blocks, functions, lines, frames.  The one
place where these are asked; what gdb raises where it cannot tell is caught here.

gdb manual, "Blocks In Python", "Symbol Tables In Python", "Frames In Python".
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import Iterator, NamedTuple, Optional

import gdb

from gdb_uffd.client.session.asking import FAILURES, decoded


class SourceLine(NamedTuple):
    """A line of the source that an instruction is compiled from; 0 for none."""

    symtab: Optional[gdb.Symtab]
    line: int

    def path(self) -> str:
        """The source file's path, as far as the debug information tells it; "" for none."""
        if self.symtab is None or not self.line:
            return ""
        return decoded(self.symtab.fullname) or file_of(self.symtab)

    def short(self) -> str:
        """ "sample.c:12", "" for none."""
        if self.symtab is None or not self.line:
            return ""
        return f"{os.path.basename(file_of(self.symtab))}:{self.line}"


def file_of(symtab: gdb.Symtab) -> str:
    """The source file's name as the debug information has it."""
    return decoded(lambda: symtab.filename)


def blocks(pc: int) -> Iterator[gdb.Block]:
    """The blocks around `pc`, innermost first, up to its function's and those around that."""
    block: Optional[gdb.Block] = None
    with contextlib.suppress(*FAILURES):
        block = gdb.block_for_pc(pc)
    while block is not None and not block.is_global and not block.is_static:
        yield block
        block = block.superblock


def function_block(pc: int) -> Optional[gdb.Block]:
    """The block of the innermost function at `pc`, an inlined one too."""
    return next((block for block in blocks(pc) if block.function is not None), None)


def function_name(pc: int) -> str:
    """Its name as the source has it, with its parameters; "" for none."""
    block = function_block(pc)
    return str(block.function.print_name) if block is not None and block.function else ""


def line_at(pc: int) -> SourceLine:
    """The source line that the instruction at `pc` is compiled from."""
    with contextlib.suppress(*FAILURES):
        found = gdb.find_pc_line(pc)
        return SourceLine(found.symtab, found.line)
    return SourceLine(None, 0)


def line_of(frame: gdb.Frame) -> SourceLine:
    """The source line at which the frame stands, that of the call in frames that called."""
    with contextlib.suppress(*FAILURES):
        found = frame.find_sal()
        return SourceLine(found.symtab, found.line)
    return SourceLine(None, 0)


def frames(limit: int, dummies: bool = False) -> Iterator[gdb.Frame]:
    """The selected thread's innermost frames, `limit` at most, as far as they can be unwound: up to
    gdb's dummy frame of a call under way, or through it where `dummies` are wanted, too."""
    frame: Optional[gdb.Frame] = None
    for _ in range(limit):
        try:
            frame = gdb.newest_frame() if frame is None else frame.older()
            if frame is None or (frame.type() == gdb.DUMMY_FRAME and not dummies):
                return
        except FAILURES:
            return
        yield frame


def behind_dummy(limit: int) -> Iterator[gdb.Frame]:
    """Frames without those of a call of gdb's that is under way."""
    every = list(frames(limit, dummies=True))
    called = next((n for n, frame in enumerate(every) if frame.type() == gdb.DUMMY_FRAME), -1)
    return itertools.islice(every, called + 1, None)


_CALLERS = (gdb.NORMAL_FRAME, gdb.TAILCALL_FRAME, gdb.INLINE_FRAME)


def code_address(frame: gdb.Frame) -> int:
    """An address in the instruction that the frame is at.

    What a call returns to may be the first of another function, or nothing at all: the outermost
    frame of a fiber returns to 0.  As gdb's get_frame_address_in_block (frame.c) has it.
    """
    newer: Optional[gdb.Frame] = frame.newer()
    while newer is not None and newer.type() == gdb.INLINE_FRAME:
        newer = newer.newer()
    called = newer is not None and newer.type() in _CALLERS and frame.type() in _CALLERS
    return max(0, int(frame.pc()) - called)
