"""Backtraces of a moment in the past, as data: who called whom, with scalar arguments."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple

import gdb

from gdb_uffd.client.session import code
from gdb_uffd.client.session.asking import FAILURES, decoded
from gdb_uffd.client.session.code import code_address, function_block, line_at, line_of
from gdb_uffd.client.session.skips import functions_around
from gdb_uffd.client.show.text import without_parameters
from gdb_uffd.dataclass import dataclass
from gdb_uffd.terminal import printable

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

STACK_MAX = 8 << 20
"""The same, where the stack pointer before the call is not known: the usual limit of a stack."""


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


def backtrace(pc: int, sp: int, floor: int) -> Tuple[List[FrameInfo], bool]:
    """The selected thread's frames, innermost first, and whether there are more.  `pc`: an address
    in the instruction that the first is about (the thread stands behind it).  Frames end at
    gdb's dummy frame, which returns to the stack: between `sp` and `floor`, if that is not 0."""
    frames: List[gdb.Frame] = []
    for frame in code.frames(MAX_FRAMES + 1):
        if sp <= frame.pc() < (floor + STACK_SLACK if floor else sp + STACK_MAX):
            break
        if frames and not frame.pc():
            break  # the unwinder lost its way
        frames.append(frame)
    more = len(frames) > MAX_FRAMES
    del frames[MAX_FRAMES:]
    frames = _from_the_writer(frames, pc)
    frames, inlined = _inlined(frames, pc)
    own = [_info(frame, 0 if inlined or index else pc) for index, frame in enumerate(frames)]
    places = functions_around(pc)[len(inlined) :]
    for index, (frame, place) in enumerate(zip(frames, places)):
        where = place.where
        if inlined and where.line and _block(frame) == place[:2]:  # not where it stands now
            own[index] = replace(own[index], file=where.path(), line=where.line)
    return inlined + own, more


def _inlined(frames: List[gdb.Frame], pc: int) -> Tuple[List[gdb.Frame], List[FrameInfo]]:
    """The frames without inlined functions that begin only behind `pc`; and those that end there,
    of which gdb, standing behind it, has no frame."""
    blocks = functions_around(pc)
    outermost = blocks.pop() if blocks else None
    own: List[gdb.Frame] = []
    rest = list(frames)
    while rest and rest[0].type() == gdb.INLINE_FRAME:
        own.append(rest.pop(0))
    if outermost is None or not rest or _block(rest[0]) != outermost[:2]:
        return frames, []
    kept = [frame for frame in own if _block(frame) in [block[:2] for block in blocks]]
    missing = [block for block in blocks if block[:2] not in [_block(frame) for frame in kept]]
    return [*kept, *rest], [
        FrameInfo(pc, without_parameters(each.name), (), each.where.path(), each.where.line)
        for each in missing
    ]


def _block(frame: gdb.Frame) -> Tuple[int, int]:
    """Where the frame's function, inlined or not, begins and ends."""
    with contextlib.suppress(*FAILURES):
        block: Optional[gdb.Block] = frame.block()
        while block is not None and block.function is None:
            block = block.superblock
        if block is not None:
            return block.start, block.end
    return 0, 0


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
    block = function_block(pc)
    return int(block.start) if block is not None else 0


def _info(frame: gdb.Frame, pc: int) -> FrameInfo:
    at = pc or code_address(frame)
    name, library = "", ""
    with contextlib.suppress(*FAILURES):
        name = decoded(frame.name)
    where = line_at(at) if pc else line_of(frame)
    file = where.path()
    if not file:
        with contextlib.suppress(*FAILURES, AttributeError):
            library = gdb.solib_name(at) or ""
    return FrameInfo(
        pc or frame.pc(),
        without_parameters(name),
        _arguments(frame),
        file,
        where.line if file else 0,
        library,
    )


def _arguments(frame: gdb.Frame) -> Tuple[Tuple[str, str], ...]:
    found: List[Tuple[str, str]] = []
    with contextlib.suppress(*FAILURES):
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
    except FAILURES as error:
        return f"<{type(error).__name__}>"
    return text if len(text) <= MAX_ARGUMENT else text[: MAX_ARGUMENT - 1] + "…"


def frame_text(frame: gdb.Frame) -> str:
    """ "walk () at sample.c:12", or "0x7f… in memcpy ()"."""
    name = frame.name()
    where = line_of(frame).short()
    if where:
        return f"{name or '??'} () at {where}"
    return f"{frame.pc():#x} in {name or '??'} ()"


def short_backtrace(limit: int = 8) -> List[str]:
    """The innermost frames of the selected thread, up to gdb's dummy frame."""
    lines = [frame_text(frame) for frame in code.frames(limit + 1)]
    return [*lines[:limit], "..."] if len(lines) > limit else lines
