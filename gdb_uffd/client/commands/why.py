"""`uffd why`: the last call once more, and every write to one object."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from typing import Callable, List, Optional, Tuple

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.commands.dirty import last_report
from gdb_uffd.client.names import written_object
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.names.written_object import Object
from gdb_uffd.client.session import sessions
from gdb_uffd.client.session.asking import FAILURES, quiet
from gdb_uffd.client.session.code import function_block
from gdb_uffd.client.session.frames import backtrace
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.rerun import RerunUnderWay
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import writes
from gdb_uffd.client.show.text import without_parameters
from gdb_uffd.protocol.messages_calls import LastReport
from gdb_uffd.protocol.messages_rerun import RerunStart, SeenWrite, Why
from gdb_uffd.protocol.model import UffdError


class WhyCommand(Command):
    """Run the last call again, and show every write to one object.

    Usage: uffd why [-first] [-json] [-full] [--] NAME|ADDRESS

      -first   only the first write
      -json    print one line, one JSON object
      -full    list all writes, not only the first 1,000

    NAME is a variable or any other lvalue: a field, an element.  At an ADDRESS it
    is what the call changed there.  Each write is shown old -> new, with its
    backtrace.  The call runs in another process, from the state before it: nothing
    of the session changes, and what the program prints is not shown again.

    Example:
        uffd call push(7)
        uffd why counter
        uffd why -first table[3].next"""

    name, usage = "why", "uffd why [-first] [-json] [-full] [--] NAME|ADDRESS"
    options, completer = ("first", "json", "full"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Find the object, run, show."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"why was what written? usage: {self.usage}")
        first, full = parsed.has("first"), parsed.has("full")
        show(session, parsed.rest, first, parsed.has("json"), full)


SHOWN = 1000
"""Writes that are listed without -full; the others are counted."""

SHOWN_FULL = 100_000
"""Writes that are listed with it: each costs a backtrace."""

_DEREFERENCES = re.compile(r"->|\*|\[")


def show(session: Session, text: str, first: bool, as_json: bool, full: bool) -> None:
    """`uffd why`."""
    began = time.perf_counter()
    result = explain(session, text, first, SHOWN_FULL if full else SHOWN)
    result.wall_ms = (time.perf_counter() - began) * 1000
    if as_json:
        say_json(writes.as_json(result))
    else:
        say(*writes.lines(result, look()))


def explain(session: Session, text: str, first: bool, limit: int) -> writes.WhyResult:
    """Every write that the last call made to what `text` names."""
    session.calls.pending = False
    session.request(LastReport())  # closes a pending transaction
    what = _find(session, text)
    asked = Why(what.address, what.length, first, limit)
    instruction = functools.lru_cache(10_000)(_instruction)  # of this program, as it is now
    with RerunUnderWay(session, asked) as rerun:
        result = writes.WhyResult(
            text, what.name, str(what.type) if what.type is not None else "", what.address,
            what.length, _ran(rerun.start), rerun.start.by, what.after, first=first,
            kernel_lost=rerun.start.kernel_lost,
        )  # fmt: skip
        try:
            for told in rerun.writes():
                result.writes.append(_write(what, told, rerun.start, instruction))
        except KeyboardInterrupt:
            result.interrupted = True
        _close(result, rerun)
    return result


def _close(result: writes.WhyResult, rerun: RerunUnderWay) -> None:
    ended = rerun.ended
    if ended is None:
        result.total, result.compared, result.cut = len(result.writes), False, True
        return
    result.total, result.more, result.seconds = ended.writes, ended.more, ended.seconds
    result.differs, result.compared = ended.differs, ended.compared
    result.not_compared, result.cut = ended.why, ended.cut


def _find(session: Session, text: str) -> Object:
    """The object; a path through pointers means what it leads to after the call, where that is
    what the call wrote."""
    now: Optional[Object] = None
    error: Optional[Exception] = None
    try:
        now = written_object.find(session, text)
    except (UffdError, *FAILURES) as reason:
        told = _as_told(session, text)
        if told is not None:
            return told
        if isinstance(reason, UffdError):
            raise
        error = reason
    if now is not None and (not _DEREFERENCES.search(text) or written_object.differs(session, now)):
        return now
    later = _find_after(session, text)
    if later is not None and (now is None or written_object.differs(session, later)):
        return later
    if now is None and error is not None:
        raise error
    assert now is not None
    return now


def _as_told(session: Session, text: str) -> Optional[Object]:
    """What the last call's report calls so: `uffd call` names elements of containers, which gdb
    reaches only with the help of the library's own functions."""
    report = last_report(session, False)
    if report is None:
        return None
    names = ReportSymbols(session, report)
    for page in report.pages:
        for change in names.changes(page):
            if change.name == text and change.size:
                type_ = None if change.raw else _type(change.type, change.size)
                return Object(text, change.address, change.size, text, type_)
    return None


def _type(name: str, size: int) -> Optional[gdb.Type]:
    with contextlib.suppress(*FAILURES):
        found = gdb.parse_and_eval(f"({name} *) 0").type.target()
        return found if found.strip_typedefs().sizeof == size else None
    return None


def _find_after(session: Session, text: str) -> Optional[Object]:
    with RerunUnderWay(session, Why()) as rerun:
        for _ in rerun.writes():
            pass
        rerun.show()
        with contextlib.suppress(*FAILURES):
            return written_object.find(session, text, after=True)
    return None


def _ran(start: RerunStart) -> str:
    """What runs again, in words."""
    names = [_function(address) for address in start.functions]
    if names:
        return names[-1] if len(names) == 1 else f"{names[-1]} and {len(names) - 1} more"
    return "the last command"


def _function(address: int) -> str:
    with contextlib.suppress(*FAILURES):
        found = quiet(f"info symbol {address:#x}").split(" in section", 1)
        if len(found) == 2:
            return f"{without_parameters(found[0].split(' + ', 1)[0])} ()"
    return f"{address:#x} ()"


def _write(
    what: Object, told: SeenWrite, start: RerunStart, instruction: Callable[[int], int]
) -> writes.WriteInfo:
    changes = tuple(
        writes.WrittenPart(p.name, p.type, p.before, p.after)
        for p in written_object.parts(
            what, told.low, told.high, told.window, told.before, told.after
        )
    )
    size = max(0, told.high - told.low)
    if told.by in ("gdb", "assignment"):
        return writes.WriteInfo(told.by, told.low, size, changes, "", 0)
    # Behind a system call, or where only the next instruction is known: one byte back.
    exact = told.exact and told.by == "program"
    frames, more = backtrace(told.pc if exact else max(0, told.pc - 1), told.sp, _floor(start))
    pc = told.pc if exact else instruction(told.pc)
    return writes.WriteInfo(
        told.by, told.low, size, changes, told.system_call, pc,
        tuple((frame.text(), frame.json()) for frame in frames), more,
    )  # fmt: skip


def _floor(start: RerunStart) -> int:
    return start.sp if start.kind == "call" else 0


def _instruction(behind: int) -> int:
    """The instruction that ends at `behind`, by disassembling its function; else a byte of it."""
    behind = max(1, behind)  # a program may stand anywhere
    with contextlib.suppress(*FAILURES):
        block = function_block(behind - 1)
        if block is not None and behind - block.start < 1 << 16:
            architecture = gdb.selected_frame().architecture()
            last: List[Tuple[int, int]] = [
                (int(i["addr"]), int(i["length"]))
                for i in architecture.disassemble(block.start, behind - 1)[-1:]
            ]
            if last and sum(last[0]) == behind:
                return last[0][0]
    return behind - 1
