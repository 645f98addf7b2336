"""What happens without a command of ours: inferior calls, prompts, gdb's end."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import os
import re
from typing import List, Optional, Tuple

import gdb

from gdb_uffd.client.names import addresses, blocked, exceptions, type_facts
from gdb_uffd.client.session import interrupts, last_call, output, saved, sessions, settings, unwind
from gdb_uffd.client.session.asking import FAILURES, machine_interface, quiet
from gdb_uffd.client.session.printing import look, say, user_error
from gdb_uffd.client.show import ends, verdict
from gdb_uffd.client.show.report_text import is_amiss, summary_line
from gdb_uffd.client.show.snapshots import DEBUGGER_SIGNALS
from gdb_uffd.protocol.messages import Done, Request, Summary
from gdb_uffd.protocol.messages_calls import CallBegin, CallEnd, CommitPending, Interrupt
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import one_line

_REPORTING = ("print", "call")
_SILENT = ("output", "printf")  # they compose a line of the user's own, which may go on
"""Commands that evaluate expressions: in scripts and with -batch no prompt follows them."""

_MODULE = "gdb_uffd.client.frontends.hooks"
_CHECK = "maintenance check-recorded"
"""Nothing to type: `apropos uffd` shall not list it."""

_ASSIGNS = re.compile(r"=|\+\+|--")
"""An expression without any of these assigns nothing (gdb manual, "Assignment")."""

_serials = itertools.count(1)
_malloc: Optional[int] = None
_hooks_defined = False


def _on_inferior_call(event: object) -> None:
    known: List[Tuple[sessions.Session, int, int]] = []
    interrupts.finish(lambda: _on_call(event, known))


def _on_call(event: object, known: List[Tuple[sessions.Session, int, int]]) -> None:
    """Tell the server when gdb calls a function: what runs then is a transaction."""
    if not known:
        session = sessions.selected()
        if session is None or session.server.ended() is not None or session.looking:
            return
        known.append((session, session.calls.depth, next(_serials)))
    if isinstance(event, gdb.InferiorCallPreEvent):
        _begins(event, *known[0])
        if interrupts.kept():  # what runs now is what it was meant for
            _tell(known[0][0], Interrupt())
            interrupts.take()
    elif isinstance(event, gdb.InferiorCallPostEvent):
        _ends(event, *known[0])


# Ctrl-C may come in between, and everything is then done again: what is set does not depend on
# what was set before, and the server knows a packet by its serial number.


def _begins(
    event: gdb.InferiorCallPreEvent, session: sessions.Session, depth: int, serial: int
) -> None:
    address = int(event.address)
    blocked.forget(session)
    unwind.restore()
    session.calls.depth = depth
    session.calls.pending = not session.calls.in_command
    is_malloc = address == _malloc_address() and _for_gdb(session)
    session.calls.depth = depth + 1
    with contextlib.suppress(UffdError):
        output.tell(session)
    _tell(session, CallBegin(address, is_malloc, serial, _is_watched()))


def _is_watched() -> bool:
    """Whether a person looks on: a line that says how long it takes is then no harm."""
    return not machine_interface() and os.isatty(1)


def _ends(
    event: gdb.InferiorCallPostEvent, session: sessions.Session, depth: int, serial: int
) -> None:
    calls = session.calls
    calls.depth = max(0, depth - 1)
    if calls.depth == 0:  # one whose arguments cannot be read begins, and has no end
        calls.last = int(event.address)
    # The end of `uffd call`'s transaction ends its outermost call, too; but what gdb writes behind
    # a call is an assignment, and not that call's frame.
    if calls.depth or not calls.in_command or _ASSIGNS.search(calls.expression):
        _tell(session, CallEnd(serial))


def _tell(session: sessions.Session, asked: Request[Done]) -> None:
    # A failure shows again, and better, when gdb itself resumes the inferior.
    with contextlib.suppress(UffdError):
        session.request(asked)


def _for_gdb(session: sessions.Session) -> bool:
    """Whether a call of malloc is gdb's own, for a string or an array that it passes.

    gdb begins the function's call first and allocates its arguments inside of that.  A
    malloc on its own is the user's, unless their expression does not name it.
    """
    if session.calls.depth > 0:
        return True
    return bool(session.calls.expression) and not re.search(r"\bmalloc\b", session.calls.expression)


def _malloc_address() -> int:
    """Address of the malloc that gdb calls, found as gdb's find_function_in_inferior does."""
    global _malloc
    if _malloc is None:
        try:
            _malloc = int(gdb.parse_and_eval("(long)&malloc"))
        except FAILURES:
            _malloc = 0
    return _malloc


def forget_symbols(event: object = None) -> None:
    """Object files came, went or were moved."""
    global _malloc
    _malloc = None
    addresses.forget(event)
    type_facts.forget()
    sessions.forget_symbols()


def before_command() -> None:
    """See whether the server is still there, and close what a command before left open: one that
    failed, or has no hook."""
    see_server()
    unwind.restore()
    session = sessions.selected()
    if session is not None and (session.calls.assigned or session.calls.pending):
        summary, told, _ = _commit(session)
        if summary is not None and settings.report():
            # How it ended was told when it did; the pages are `uffd dirty -all`'s.
            rest = dataclasses.replace(summary, pages=0, end=None)
            if is_amiss(rest, told):
                say(summary_line(rest, look(), told, "the command before"))


def see_server() -> None:
    """See whether the server is still there, and answers what gdb asks.

    An error keeps gdb from a command: without a process it would take what the executable's file
    has for the answer."""
    session = sessions.selected()
    if session is None:
        return
    try:
        if session.server.ended() is not None:
            raise UffdError(sessions.bury(session))
        sessions.keep_step(session)
    except UffdError as error:
        raise user_error(f"uffd: {error}") from None


def _on_memory_changed(_event: object) -> None:
    interrupts.finish(_note_assignment)


def _note_assignment() -> None:
    # What gdb writes as a command says belongs to that command, not to the call after it.
    session = sessions.selected()
    if session is not None and not session.calls.in_command:
        session.calls.assigned = True


def _commit(session: sessions.Session) -> Tuple[Optional[Summary], str, str]:
    """Close the transaction of a plain command, unless a command of ours is at work; what it
    dirtied, the exception that it ended by, and how else it ended where names tell more than was
    told when it did."""
    if session.calls.in_command or not (session.calls.pending or session.calls.assigned):
        return None, "", ""
    session.calls.pending, session.calls.assigned, session.calls.depth = False, False, 0
    told = named = ""
    try:
        summary = session.request(CommitPending())
    except UffdError as error:
        say(f"[uffd: {error}]")
        return None, "", ""
    if summary is not None and summary.uncaught:
        exceptions.note(session)  # what was kept is there still
        told = exceptions.text(exceptions.described(session, summary.uncaught))
    if summary is not None and summary.end is not None:
        # The server told it when it stopped, but without symbols.
        named = blocked.text(session) or ends.end_short(summary.end, blocked.place)
        if named == ends.end_short(summary.end):
            named = ""
    return summary, told, named


def after_command() -> None:
    """Close the transaction of a plain `print f ()` and tell in a line what it dirtied."""
    interrupts.finish(_after_command)
    interrupts.act()


def _after_command() -> None:
    session = sessions.selected()
    if session is not None:
        session.evaluating = False
    if session is None or not session.calls.pending:
        return
    summary, *words = _commit(session)
    told = " · ".join(filter(None, reversed(words)))
    if summary is not None and settings.report() and (summary.pages or is_amiss(summary, told)):
        say(summary_line(summary, look(), told))


def after_core() -> None:
    """gdb has written a core of its own: what kept calls read may be in it, as in one of ours."""
    session = sessions.selected()
    if session is not None:
        session.evaluating = False
        with contextlib.suppress(UffdError):
            read = verdict.may_hold(last_call.files_kept(session))
            if read:
                say(f"[uffd: the core {read.lstrip('; ')}]")


def after_silent_command() -> None:
    """Close the transaction; `uffd dirty` tells what it did."""
    session = sessions.selected()
    if session is not None:
        session.evaluating = False
    if session is not None and session.calls.pending:
        _commit(session)
    interrupts.act()


def _before_prompt(_event: object = None) -> None:
    with contextlib.suppress(*FAILURES, KeyboardInterrupt):
        sessions.settle()
        saved.relock()
        unwind.restore()
        sessions.borrow()
        try:
            see_server()  # one that died meanwhile is told now, not by gdb's next error
        except gdb.GdbError as error:
            say(f"[{error}]")
        session = sessions.selected()
        # Else the hook behind the command had its turn.
        failed = session is not None and (session.calls.pending or session.evaluating)
        _after_command()
        interrupts.take()  # at a prompt nothing is left to be ended
        if failed and session is not None and settings.report():
            _explain(session)


def _explain(session: sessions.Session) -> None:
    """Say why no process could be made: gdb only said "Cannot access memory at address"."""
    missing = session.last_unavailable()
    if missing is not None and missing.address is None and missing != session.explained:
        session.explained = missing
        say(f"[uffd: {one_line(missing.reason)}]")


def before_leaving() -> None:
    """`kill`, `detach`, `disconnect`: give gdb's settings back while there is a target.

    `set scheduler-locking` needs one.  Where the user then thinks better of it, the prompt
    takes them again.
    """
    sessions.lend_back()


def before_run() -> None:
    """`run`, `start`, `starti`: with a core open gdb starts the program; a remote target would be
    in the way."""
    session = sessions.selected()
    if session is not None:
        sessions.end(session)


def before_reverse() -> None:
    """`reverse-continue` and its kin: all threads go, to those of another snapshot.  Nothing can
    be delivered on the way; gdb would warn of that."""
    session = sessions.selected()
    if session is None:
        return
    with contextlib.suppress(*FAILURES):
        saved.unlock()
        if session.position.signal not in DEBUGGER_SIGNALS:
            quiet("queue-signal 0")


def before_quit() -> None:
    """`quit` asks about live processes; ours is no loss, so it goes before gdb can ask."""
    if sessions.only_ours_live():
        _end_all()


def _end_all(_event: object = None) -> None:
    with contextlib.suppress(*FAILURES, UffdError):
        sessions.end_all()


def _define_hooks() -> None:
    """Hook gdb's commands (gdb manual, "User-defined Command Hooks"), once.

    A hook of the user's own stays; the prompt then does what ours would.
    """
    global _hooks_defined
    if _hooks_defined:
        return
    _hooks_defined = True
    _Check()
    for command in (*_REPORTING, *_SILENT, "generate-core-file"):
        _define(f"hook-{command}", _CHECK)
    _define("hookpost-generate-core-file", _python("after_core"))
    for command in _REPORTING:
        _define(f"hookpost-{command}", _python("after_command"))
    for command in _SILENT:
        _define(f"hookpost-{command}", _python("after_silent_command"))
    for command in ("kill", "detach", "disconnect"):
        _define(f"hook-{command}", _python("before_leaving"))
    for command in ("run", "start", "starti"):
        _define(f"hook-{command}", _python("before_run"))
    for command in ("continue", "step", "next", "stepi", "nexti", "finish"):
        _define(f"hook-reverse-{command}", _python("before_reverse"))
    _define("hook-quit", _python("before_quit"))


class _Check(gdb.Command):
    """See whether what serves this inferior's core still answers."""

    # A command: from `python` an error would come with a traceback (gdb 13).

    def __init__(self) -> None:
        super().__init__(_CHECK, gdb.COMMAND_MAINTENANCE)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Raise gdb.GdbError when it does not."""
        before_command()
        session = sessions.selected()
        if session is not None:
            session.evaluating = True


def _python(function: str) -> str:
    return f"python import {_MODULE}; {_MODULE}.{function}()"


def _define(name: str, body: str) -> None:
    with contextlib.suppress(*FAILURES):
        quiet(f"show user {name}")
        return  # it is the user's
    quiet(f"define {name}\n{body}\nend")
    quiet(f"document {name}\nFor recorded processes: `show user {name}` tells more.\nend")


def install() -> None:
    """Connect to gdb's events; called once, at load."""
    gdb.events.inferior_call.connect(_on_inferior_call)
    gdb.events.memory_changed.connect(_on_memory_changed)
    gdb.events.before_prompt.connect(_before_prompt)
    gdb.events.connection_removed.connect(sessions.on_connection_removed)
    sessions.openings.append(_define_hooks)
    sessions.forgetful.append(forget_symbols)
    sessions.greetings.append(output.greet)
    gdb.events.new_objfile.connect(forget_symbols)
    gdb.events.clear_objfiles.connect(forget_symbols)
    gdb.events.gdb_exiting.connect(_end_all)
    atexit.register(sessions.at_exit)
