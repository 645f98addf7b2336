"""`uffd call`: evaluate, show, and forget."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Dict, List, Optional, Tuple

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.names import addresses, blocked, exceptions
from gdb_uffd.client.names.call_stops import watch_stops
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.session import (
    interrupts,
    last_call,
    libraries,
    output,
    sessions,
)
from gdb_uffd.client.session.asking import (
    FAILURES,
    Selection,
    flush_caches,
    flush_memory,
    machine_interface,
    one_cpu,
    quiet,
    setting,
    silent_stdout,
)
from gdb_uffd.client.session.options import Parsed, split_format
from gdb_uffd.client.session.outcome import CallStop, Outcome
from gdb_uffd.client.session.printing import look, say, say_json, say_quoted, show_command
from gdb_uffd.client.session.saved import no_breakpoint_commands
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.state import Context
from gdb_uffd.client.show import ends, report_json, report_text
from gdb_uffd.client.show.text import Look
from gdb_uffd.protocol.messages_calls import BeginTransaction, EndTransaction
from gdb_uffd.protocol.model import PAGE_SIZE, CallReport, UffdError, page_floor
from gdb_uffd.terminal import one_line, printable


class CallCommand(Command):
    """Evaluate an expression, show what it dirtied, and forget it.

    Usage: uffd call [-keep] [-json] [--] [/FMT] EXPRESSION

      -keep   keep the effects, as a plain `print` does
      -json   print one line, one JSON object

    First comes what the called functions print, then the value as `print` shows it
    (it enters the value history), then the pages that were written: what they
    hold, the variables that changed, and who wrote first.

    Example:
        uffd call push(7)
        $1 = 1042
        (then the pages)"""

    name, usage = "call", "uffd call [-keep] [-json] [--] EXPRESSION"
    options, completer = ("keep", "json"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Evaluate in a transaction."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be called? usage: {self.usage}")
        call(session, parsed.rest, parsed.has("keep"), parsed.has("json"))


_PLAIN_CODES = (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_FLT, gdb.TYPE_CODE_BOOL, gdb.TYPE_CODE_ENUM)
"""Types before whose values `print` puts nothing; "(char *) " stands before a pointer."""


_job: List[Any] = []
"""What `evaluate_job` works on: gdb.execute can capture a command's output, not a function's."""


def call(session: Session, text: str, keep: bool, as_json: bool) -> None:
    """Evaluate `text` in a transaction of its own, tell what it did, and undo it unless `keep`."""
    letters, expression = split_format(text)
    with one_cpu() as cpu:
        report, outcome = run_call(session, letters, expression, keep, as_json, cpu)
    last = last_call.Last(report, outcome, expression)
    last_call.note(session, last)
    try:
        if as_json:
            say_json(call_object(session, report, outcome, expression))
        else:
            output.print_rest(report)
            _print_text(session, report, outcome)
    finally:
        outcome.waited_ms()
        last_call.tell(session, last)
        libraries.follow(session)


def run_call(
    session: Session, letters: str, expression: str, keep: bool, as_json: bool, cpu: Optional[int]
) -> Tuple[CallReport, Outcome]:
    """The transaction: begin, evaluate, end, and gdb's caches as they must be then; its libraries
    are those of the call, whose symbols name what it did, until libraries.follow."""
    outcome = Outcome()
    try:
        # Of -json the one line is all; a front end has a stream for what the program prints.
        quietly = as_json and not machine_interface()
        session.request(BeginTransaction(cpu, quietly, discards=not keep))
    except UffdError:
        flush_caches()  # the process may have been killed: this is the snapshot again
        libraries.update()
        raise
    selection = Selection()
    session.calls.pending = False
    session.calls.in_command, session.calls.expression, session.calls.depth = True, expression, 0
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(no_breakpoint_commands())
            stack.enter_context(setting("suppress-cli-notifications", "on"))
            if not keep:
                # gdb then pops its dummy frame itself, however deep the program had gone.
                stack.enter_context(setting("unwindonsignal", "on"))
            if as_json:
                _job[:] = [session, outcome, letters, expression]
                stack.enter_context(silent_stdout())
                quiet(
                    "python import gdb_uffd.client.commands.call; "
                    "gdb_uffd.client.commands.call.evaluate_job()"
                )
            else:
                _evaluate(session, outcome, letters, expression)
    except BaseException:
        with contextlib.suppress(UffdError):  # else no call would begin any more
            session.request(EndTransaction())
        raise
    finally:
        session.calls.in_command, session.calls.expression = False, ""
    unfinished = outcome.stop is not None and outcome.stop.breakpoint
    kept = keep or unfinished
    report = _end(session, outcome, kept)
    outcome.uncaught = exceptions.described(session, report.uncaught)
    report.unsound = [blocked.passed(session, lock) for lock in report.passed]
    wrote = any(page.meant for page in report.pages)
    report.called = bool(outcome.functions or wrote or not outcome.error)
    if not kept and (outcome.functions or report.pages or report.registers):
        _forget_the_call(outcome.error or report.registers, selection)
    return report, outcome


def _forget_the_call(registers: object, selection: Selection) -> None:
    """gdb's caches after a discard.  A function that returned left the registers, and with them
    the frames, as gdb itself put them back: only the memory is another, unless `registers`."""
    if not registers:
        flush_memory()
        return
    flush_caches()
    selection.restore()


def _end(session: Session, outcome: Outcome, keep: bool) -> CallReport:
    """Close the transaction; when that fails, what is known is told without a report."""
    try:
        report = session.request(EndTransaction(keep))
        session.position.libraries_stale = report.libraries_stale
    except UffdError as error:
        with contextlib.suppress(*FAILURES, UffdError):
            flush_caches()
            libraries.update()
        if not outcome.error:
            return CallReport(
                "call", keep, 0, session.ready.total_pages, 0.0, "", [], untold=one_line(str(error))
            )
        why = f"{outcome.stop.reason} in {outcome.stop.where}" if outcome.stop else outcome.error
        if session.server.ended() is not None:
            why = session.death().lstrip(": ")
        else:
            why = f"{one_line(why)} ({error})"
        raise UffdError(f"{function_name(outcome)} did not return: {why}") from None
    return report


def evaluate_job() -> None:
    """Run the job that `call` left, its output being captured."""
    session, outcome, letters, expression = _job
    _job.clear()
    _evaluate(session, outcome, letters, expression)


def _evaluate(session: Session, outcome: Outcome, letters: str, expression: str) -> None:
    session.calls.last = 0
    session.calls.context = Context(expression)
    with watch_stops(outcome):
        try:
            value = gdb.parse_and_eval(expression)
            outcome.stop = None
            interrupts.act()
            # While the call's memory is still there: strings and pretty printers read it.
            number = gdb.add_history(value)
            outcome.value = _value_text(value, number, letters)
            outcome.number = number
            session.calls.context = Context(expression, number)
            outcome.type = str(value.type)
        except FAILURES as error:
            outcome.error = one_line(str(error))
            _select_innermost()
            if outcome.stop is not None and not outcome.stop.reason:
                signal = re.search(r"\b(SIG[A-Z0-9]+)\b", outcome.error)
                outcome.stop.reason = signal[1] if signal else "a stop"
            if session.calls.last:
                outcome.uncaught = exceptions.note(session)
            if "Cannot access memory" in outcome.error:
                outcome.error += _reason(session, outcome.error)
        except KeyboardInterrupt:
            outcome.error = "interrupted"
            _select_innermost()
    if session.calls.last:
        outcome.functions.append(session.calls.last)


def _select_innermost() -> None:
    """The frame that was selected may be overwritten: a function can leave for frames of its
    callers' (setcontext, a longjmp of its own).  gdb 13 looks for it after the next command, and
    stops at an assertion of its own when it finds none (frame.c, get_selected_frame)."""
    with contextlib.suppress(*FAILURES):
        gdb.newest_frame().select()


def _value_text(value: gdb.Value, number: int, letters: str) -> str:
    """What `print` shows after "$N = "."""
    if not letters and value.type.strip_typedefs().code in _PLAIN_CODES:
        # The same text, ten times faster: no command with its hooks.
        return str(value.format_string())
    return quiet(f"output{letters} ${number}")


def _reason(session: Session, error: str) -> str:
    """The server's reason for a memory error, in brackets; gdb only knows the address."""
    missing = session.last_unavailable()
    if missing is None:
        return ""
    asked = re.search(r"0x[0-9a-f]+", error)
    if missing.address is not None and asked:
        pages = page_floor(missing.address) - page_floor(int(asked[0], 16))
        if not 0 <= pages <= PAGE_SIZE:  # a frame may end in the next page
            return ""  # an older failure, of something else
    return f" ({one_line(ends.missing_text(missing))})"


def _print_text(session: Session, report: CallReport, outcome: Outcome) -> None:
    looks = look()
    if not outcome.error:
        say_value(outcome)
    if report.untold:
        raise UffdError(f"what the call did is not known: {report.untold}")
    failure = failure_line(session, report, outcome, looks)
    if not failure or (report.called and report.pages):
        say(
            *report_text.report_lines(
                report, ReportSymbols(session, report), looks, outcome.waited_ms
            )
        )
    if outcome.uncaught and not failure:  # in a pretty printer
        say(f"  {exceptions.text(outcome.uncaught)}")
    if failure and outcome.stop is not None:
        if outcome.stop.breakpoint:
            show_command("frame")
        else:
            say(*(printable(f"  #{n} {text}") for n, text in enumerate(outcome.stop.backtrace)))
    if failure:
        raise UffdError(failure)


def say_value(outcome: Outcome) -> None:
    """As `print` does; what a printer of the user's own gives is the program's text."""
    say_quoted(f"${outcome.number} = {outcome.value}")


def failure_line(session: Session, report: CallReport, outcome: Outcome, looks: Look) -> str:
    """Why there is no value, in one line; "" when there is one."""
    if not outcome.error:
        return ""
    stop = outcome.stop
    if report.returned:
        return one_line(outcome.error)  # it never began, or had returned: gdb's own words
    what = function_name(outcome)
    if stop is not None and stop.breakpoint:
        return (
            f"{what} is not finished: stopped at {stop.reason} in {stop.where}; "
            "`finish` or `continue` go on, `uffd reset` forgets it"
        )
    missing = ends.unavailable_text(report.end)
    if missing:
        why = f"touched memory that was not recorded: {one_line(missing)}"
        if stop is not None:
            why += f", in {stop.where}"
    elif report.blocked or report.end is not None:
        why = _ended_for(session, report)
    elif "std::terminate" in outcome.error or (outcome.uncaught and _reason_is(stop, "SIGABRT")):
        why = exceptions.text(outcome.uncaught) or "a C++ exception left it uncaught"
    elif stop is not None and _reason_is(stop, "SIGINT"):
        why = f"interrupted in {stop.where}"
    elif stop is not None:
        why = f"{stop.reason} in {stop.where}"
    else:
        why = one_line(outcome.error)
    end = "kept; `uffd reset` forgets it" if report.kept else "discarded"
    if report.kept and outcome.unwound:
        end = f"gdb left its frames, what it wrote is {end}"
    return looks.plain(printable(f"{what} did not return: {why}; {end}"))


def _reason_is(stop: Optional[CallStop], reason: str) -> bool:
    return stop is not None and stop.reason == reason


def _ended_for(session: Session, report: CallReport) -> str:
    """Why the program went no further; "" where a signal, or nothing, ended the call."""
    waits = blocked.text(session) if report.blocked else ""
    if waits or report.end is None:
        return waits
    if report.kept:  # the program still stands there
        return one_line(ends.end_text(report.end, place=blocked.place))
    return one_line(ends.end_short(report.end, blocked.place))


def function_name(outcome: Outcome) -> str:
    """The function that gdb called last, "push ()"; "the call" where there is no name for it."""
    if not outcome.functions:
        return "the call"
    # Not by `info symbol` alone: it reads "do__exit" as a name of Ada's, "do.exit".
    name = addresses.function(outcome.functions[-1])
    return f"{name} ()" if name else "the call"


def call_object(
    session: Session, report: CallReport, outcome: Outcome, expression: str
) -> Dict[str, Any]:
    """The object of -json (docs/json.md)."""
    failed = bool(outcome.error)
    data = report_json.report_json(report, ReportSymbols(session, report))
    head: Dict[str, Any] = {
        "schema": data.pop("schema"),
        "expression": expression,
        "value": None if failed else outcome.value,
        "type": None if failed else outcome.type,
        "wall_ms": round(outcome.waited_ms(), 3),
    }
    if failed:
        head["error"] = failure_line(session, report, outcome, Look(width=0))
        if outcome.stop is not None:
            head["stopped"] = {
                # gdb only saw a trap where the server ended it.
                "reason": _ended_for(session, report)
                or exceptions.text(outcome.uncaught)
                or outcome.stop.reason,
                "where": outcome.stop.where,
                "backtrace": outcome.stop.backtrace,
            }
    elif report.untold:
        head["error"] = f"what the call did is not known: {report.untold}"
    if outcome.uncaught:
        head["uncaught"] = exceptions.as_json(outcome.uncaught)
    if report.blocked:
        head["blocked"] = blocked.described(session, report.blocked)
    return {**head, **data}
