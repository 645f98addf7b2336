"""Backtraces of a moment in the past, as data: who called whom, with scalar arguments."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import gdb

from gdb_uffd.client.gdb_util import decoded, file_of
from gdb_uffd.client.text import printable, without_parameters

MAX_FRAMES = 64
"""Frames of one backtrace."""

MAX_ARGUMENT = 60
"""Characters of an argument's value."""

_SCALARS = (
    gdb.TYPE_CODE_INT,
    gdb.TYPE_CODE_FLT,
    gdb.TYPE_CODE_BOOL,
    gdb.TYPE_CODE_ENUM,
    gdb.TYPE_CODE_CHAR,
    gdb.TYPE_CODE_PTR,
    gdb.TYPE_CODE_REF,
)
"""As `set print frame-arguments scalars` has it; what else there is shows as "..."."""

STACK_SLACK = 4096
"""gdb's dummy frame returns to the stack, at most this far above the stack pointer."""


@dataclass(frozen=True)
class FrameInfo:
    """One frame; `file` "" and `line` 0 where there is no line information."""

    pc: int
    function: str
    arguments: Tuple[Tuple[str, str], ...]
    file: str
    line: int
    library: str = ""

    def text(self) -> str:
        """ "push (value=7) at sample.c:24", "0x7f.. in memcpy ()"."""
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments)
        name = f"{self.function or '??'} ({arguments})"
        if self.file and self.line:
            return printable(f"{name} at {self.file.rpartition('/')[2]}:{self.line}")
        where = f" from {self.library.rpartition('/')[2]}" if self.library else ""
        return printable(f"{self.pc:#x} in {name}{where}")

    def json(self) -> Dict[str, Any]:
        """A frame of docs/json.md."""
        return {
            "pc": hex(self.pc),
            "function": self.function or None,
            "arguments": dict(self.arguments),
            "file": self.file or None,
            "line": self.line or None,
        }


def backtrace(pc: int, sp: int, floor: int) -> List[FrameInfo]:
    """The selected thread's frames, innermost first.  `pc`: an address in the instruction that the
    first is about (the thread stands behind it).  Where `floor` is not 0, frames end at gdb's dummy
    frame, which returns to the stack between `sp` and `floor`."""
    frames: List[gdb.Frame] = []
    with contextlib.suppress(gdb.error):
        frame: Optional[gdb.Frame] = gdb.newest_frame()
        while frame is not None and len(frames) < MAX_FRAMES:
            if frame.type() == gdb.DUMMY_FRAME:
                break
            if floor and sp <= frame.pc() < floor + STACK_SLACK:
                break
            frames.append(frame)
            frame = frame.older()
    frames = _from_the_writer(frames, pc)
    return [_info(frame, pc if index == 0 else 0) for index, frame in enumerate(frames)]


def _from_the_writer(frames: List[gdb.Frame], pc: int) -> List[gdb.Frame]:
    """Without the innermost frame where a call instruction wrote: the thread stands in the function
    that it called, at its first instruction."""
    if len(frames) > 1:
        start = _start(frames[0].pc())
        if start == frames[0].pc() and _start(pc) != start:
            return frames[1:]
    return frames


def _start(pc: int) -> int:
    """Where the function of `pc` begins, 0 when that is not known."""
    with contextlib.suppress(gdb.error, RuntimeError):
        block: Optional[gdb.Block] = gdb.block_for_pc(pc)
        while block is not None and block.function is None:
            block = block.superblock
        if block is not None:
            return int(block.start)
    return 0


def _info(frame: gdb.Frame, pc: int) -> FrameInfo:
    # A return address may be the first of the next line: the call lies one byte before it.
    at = pc or frame.pc() - (1 if frame.level() and frame.type() != gdb.SIGTRAMP_FRAME else 0)
    name, line, file, library = "", 0, "", ""
    with contextlib.suppress(gdb.error):
        name = decoded(frame.name)
    with contextlib.suppress(gdb.error, RuntimeError):
        where = gdb.find_pc_line(at)
        # An inlined function's frame has its own line.
        if frame.type() == gdb.INLINE_FRAME or not pc:
            where = frame.find_sal()
        if where.symtab is not None and where.line:
            file = decoded(where.symtab.fullname) or file_of(where.symtab)
            line = where.line
    if not file:
        with contextlib.suppress(gdb.error, AttributeError):
            library = gdb.solib_name(at) or ""
    return FrameInfo(
        pc or frame.pc(), without_parameters(name), _arguments(frame), file, line, library
    )


def _arguments(frame: gdb.Frame) -> Tuple[Tuple[str, str], ...]:
    found: List[Tuple[str, str]] = []
    with contextlib.suppress(gdb.error, RuntimeError):
        block: Optional[gdb.Block] = frame.block()
        while block is not None and block.function is None:
            block = block.superblock
        for symbol in block or ():
            if symbol.is_argument:
                found.append((symbol.print_name, _value(frame, symbol)))
    return tuple(found)


def _value(frame: gdb.Frame, symbol: gdb.Symbol) -> str:
    try:
        value = symbol.value(frame)
        if value.is_optimized_out:
            return "<optimized out>"
        if value.type.strip_typedefs().code not in _SCALARS:
            return "..."
        text = value.format_string(max_elements=20)
    except (gdb.error, UnicodeDecodeError) as error:
        return f"<{type(error).__name__}>"
    return text if len(text) <= MAX_ARGUMENT else text[: MAX_ARGUMENT - 1] + "…"
