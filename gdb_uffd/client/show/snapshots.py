"""The snapshots of a trace as a user names and sees them: labels, ranges, tables.  No gdb here."""

from __future__ import annotations

import re
import signal
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.client.show.text import Look, number, signal_name
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import SCHEMA_VERSION, SnapshotInfo, UffdError
from gdb_uffd.terminal import printable

MAX_ROWS = 48
"""Snapshots that a table shows without -full."""

_AROUND = 8  # rows at each end, and on each side of the present one

DEBUGGER_SIGNALS = (0, signal.SIGTRAP, signal.SIGSTOP)
"""How a debugger stops a program: nothing that the program did."""

MAX_NAMED = 6
"""Labels or numbers that an error message lists."""


# -- names ------------------------------------------------------------------------------------


def find(snapshots: Sequence[SnapshotInfo], name: str, current: int) -> int:
    """The number that `name` means: a number, `+N` or `-N` from `current`, `start`, `end`, or a
    label, which may be quoted.  UffdError tells what there is."""
    text, last = name.strip(), len(snapshots) - 1
    if re.fullmatch(r"[+-]\d{1,9}", text):
        return _within(current + int(text), last)
    if re.fullmatch(r"\d{1,9}", text):
        return _within(int(text), last)
    if text in ("start", "end"):
        return 0 if text == "start" else last
    quoted = re.fullmatch(r"\"(.*)\"|'(.*)'", text)
    label = (quoted[1] or quoted[2] or "") if quoted else text
    named = [info.number for info in snapshots if info.label and info.label == label]
    if len(named) == 1:
        return named[0]
    if named:
        several = ", ".join(map(str, named[:MAX_NAMED])) + (", …" if named[MAX_NAMED:] else "")
        raise UffdError(f'"{printable(label)}" is the label of several ({several}): name a number')
    labels = list(dict.fromkeys(info.label for info in snapshots if info.label))
    there = ", ".join(f'"{printable(each)}"' for each in labels[:MAX_NAMED])
    more = ", …" if labels[MAX_NAMED:] else ""
    what = "label" if len(labels) == 1 else "labels"
    raise UffdError(
        f'no snapshot "{printable(label)}": there are {_numbers(last)}, start, end'
        + (f", and the {what} {there}{more}" if labels else "; none has a label")
    )


def _within(wanted: int, last: int) -> int:
    if not 0 <= wanted <= last:
        raise UffdError(f"no snapshot {wanted}: there {'are' if last else 'is'} {_numbers(last)}")
    return wanted


def _numbers(last: int) -> str:
    return f"0 to {last}" if last else "only 0"


def find_range(snapshots: Sequence[SnapshotInfo], text: str, current: int) -> range:
    """The snapshots of `A..B` or `A-B`, both included, of `A..`, `..B`, or of the one A.

    A and B are names as `find` takes them.  UffdError.
    """
    text = text.strip()
    for match in re.finditer(r"\.\.", text):
        ends = text[: match.start()].strip(), text[match.end() :].strip()
        return _between(snapshots, ends, current)
    try:
        one = find(snapshots, text, current)
        return range(one, one + 1)
    except UffdError as error:
        for match in re.finditer(r"-", text):
            ends = text[: match.start()].strip(), text[match.end() :].strip()
            try:
                if all(ends):
                    return _between(snapshots, ends, current)
            except UffdError:
                if re.fullmatch(r"\d+-\d+", text):
                    raise
        raise error from None


def _between(snapshots: Sequence[SnapshotInfo], ends: Tuple[str, str], current: int) -> range:
    first = find(snapshots, ends[0], current) if ends[0] else 0
    last = find(snapshots, ends[1], current) if ends[1] else len(snapshots) - 1
    if first > last:
        raise UffdError(f"snapshot {first} is after {last}: name the earlier one first")
    return range(first, last + 1)


_IN = re.compile(r"\s+in\s+(?=\S)")


def split_range(text: str) -> Tuple[str, str]:
    """`EXPRESSION in RANGE` as the two, RANGE "" when it is left out.

    An " in " inside of quotes is the expression's.
    """
    for match in reversed(list(_IN.finditer(text))):
        before, after = text[: match.start()], text[match.end() :]
        if before.strip() and not before.count('"') % 2 and not before.count("'") % 2:
            return before.strip(), after.strip()
    return text.strip(), ""


def split_names(text: str) -> List[str]:
    """Names one after the other; a label with blanks in it is quoted."""
    return re.findall(r"\"[^\"]*\"|'[^']*'|\S+", text)


def completions(snapshots: Sequence[SnapshotInfo], text: str) -> List[str]:
    """Labels, `start`, `end` and numbers that begin with `text`.  Numbers only once one is begun:
    a thousand of them would bury the labels."""
    labels = dict.fromkeys(info.label for info in snapshots if info.label)
    found = [name for name in [*labels, "start", "end"] if name.startswith(text)]
    if text.isdigit() or len(snapshots) <= MAX_ROWS:
        found += [str(n) for n in range(len(snapshots)) if str(n).startswith(text)]
    return found


# -- how one is told --------------------------------------------------------------------------


def clock(time_ns: int) -> str:
    """The local time of day to the millisecond; "" when it is not known."""
    if time_ns <= 0:
        return ""
    seconds, rest = divmod(time_ns, 10**9)
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{rest // 10**6:03d}"


def day(time_ns: int) -> str:
    """The local date; "" when it is not known."""
    return time.strftime("%Y-%m-%d", time.localtime(time_ns // 10**9)) if time_ns > 0 else ""


def elapsed_ns(first: SnapshotInfo, info: SnapshotInfo) -> Optional[int]:
    """Nanoseconds from `first` to `info`: by the clock that is never set, where both have it."""
    if first.monotonic_ns and info.monotonic_ns and first.pid == info.pid:
        return info.monotonic_ns - first.monotonic_ns
    return info.time_ns - first.time_ns if first.time_ns and info.time_ns else None


def after(first: SnapshotInfo, info: SnapshotInfo) -> str:
    """ "+12 ms": how long after `first`; "" when that is not known."""
    passed = elapsed_ns(first, info)
    if passed is None:
        return ""
    return f"{'-' if passed < 0 else '+'}{duration(abs(passed))}"


def duration(ns: int) -> str:
    """To the millisecond or better: "0.3 ms", "12.5 ms", "250 ms", "1.250 s"."""
    if ns >= 10**9:
        return f"{ns / 1e9:.3f} s"
    return f"{ns / 1e6:.0f} ms" if ns >= 10**8 or not ns else f"{ns / 1e6:.1f} ms"


def of_program(number_: int) -> str:
    """ "SIGSEGV" for a signal the program got; "" for how a debugger stops one."""
    return "" if number_ in DEBUGGER_SIGNALS else signal_name(number_)


def headline(snapshots: Sequence[SnapshotInfo], current: int, look: Look) -> str:
    """ "snapshot 3 of 0-9 "inserted" · 12:03:04.123 · +1.2 s"."""
    info = snapshots[current]
    parts = [f"snapshot {current} of 0-{len(snapshots) - 1}"]
    if info.label:
        parts[0] += f' "{printable(info.label)}"'
    parts += [clock(info.time_ns), after(snapshots[0], info) if current else ""]
    parts.append(_signal(info))
    return look.plain(" · ".join(part for part in parts if part))


def table(
    snapshots: Sequence[SnapshotInfo], current: int, look: Look, all_rows: bool = False
) -> List[str]:
    """A line a snapshot, the present one marked; long lists without their middle.  Where the
    terminal is too narrow cells are cut, and columns left out; of `all_rows` only functions."""
    rows = [_row(snapshots, info, current) for info in snapshots]
    shown = list(range(len(rows))) if all_rows else elide(len(rows), current)
    head = ("", "Num", "Time", "After", "Thread", "Function", "Changed", "Label")
    columns = [list(row) for row in [head, *(rows[n] for n in shown)]]
    if look.width:
        _fit(columns, look, _STAGES[:1] if all_rows else _STAGES)
    for c in range(1, len(head)):
        width = max(len(row[c]) for row in columns) if any(row[c] for row in columns[1:]) else 0
        for row in columns:
            row[c] = row[c].rjust(width) if c in _RIGHT else row[c] if width else ""
    lines = [day(snapshots[0].time_ns)] if snapshots[0].time_ns else []
    before = -1
    heads = aligned([row[:-1] for row in columns], look)
    for n, start, row in zip([-1, *shown], heads, columns):
        if n > before + 1:
            lines.append(f"     … {number(n - before - 1)} more: `uffd snapshots -full`")
        before = max(before, n)
        lines += under(start, [row[-1]], look) if row[-1] else look.wrapped(start.rstrip())
    return [look.plain(line) for line in lines]


_NUMBER, _TIME, _AFTER, _THREAD, _FUNCTION, _CHANGED, _LABEL = range(1, 8)

_STAGES: Sequence[Dict[int, int]] = (
    {_FUNCTION: 12},
    {_FUNCTION: 12, _THREAD: 12, _LABEL: 16},
    {_FUNCTION: 12, _THREAD: 0, _LABEL: 16},
    {_FUNCTION: 12, _THREAD: 0, _TIME: 0, _LABEL: 12},
    {_FUNCTION: 8, _THREAD: 0, _TIME: 0, _CHANGED: 0, _LABEL: 8},
)
"""How few columns each has on a narrow terminal, the widest one first; 0: it is left out."""


def _fit(columns: List[List[str]], look: Look, stages: Sequence[Dict[int, int]]) -> None:
    """Cut what may be cut until a row fits in a line, in order of the columns named."""
    whole = [list(row) for row in columns]
    for least in stages:
        for row, old in zip(columns, whole):
            row[:] = [cell if least.get(c) != 0 else "" for c, cell in enumerate(old)]
        for c, room in least.items():
            over = _width(columns, look) - look.width
            widest = max(look.columns(row[c]) for row in columns)
            for row in columns if over > 0 else []:
                row[c] = look.cropped(row[c], max(room, widest - over))
        if _width(columns, look) <= look.width:
            return


def _width(columns: Sequence[Sequence[str]], look: Look) -> int:
    """Of the widest row, two blanks between cells, and one: gdb breaks what fills the line."""
    widths = [max(look.columns(row[c]) for row in columns) for c in range(len(columns[0]))]
    empty = [not any(row[c] for row in columns[1:]) for c in range(len(widths))]
    return sum(w + 2 for w, none in zip(widths, empty) if not none) - 2 + 1


_RIGHT = (1, 3, 6)
"""Columns of numbers."""


def _row(snapshots: Sequence[SnapshotInfo], info: SnapshotInfo, current: int) -> Tuple[str, ...]:
    name = printable(info.thread_name)
    thread = f'{info.tid} "{name}"' if name else str(info.tid or "")
    function = f"{printable(info.function)} ()" if info.function else ""
    note = " ".join(text for text in (_quoted(info.label), _signal(info)) if text)
    return (
        "*" if info.number == current else " ",
        str(info.number),
        clock(info.time_ns),
        after(snapshots[0], info) if info.number else "",
        thread,
        function,
        number(info.pages_changed),
        note,
    )


def _signal(info: SnapshotInfo) -> str:
    """The signal, unless the label says it."""
    name = of_program(info.signal)
    return "" if name == info.label else name


def _quoted(label: str) -> str:
    return f'"{printable(label)}"' if label else ""


def elide(count: int, current: int = 0) -> List[int]:
    """Which of `count` rows to show: all, or both ends and those around `current`."""
    if count <= MAX_ROWS:
        return list(range(count))
    near = range(current - _AROUND, current + _AROUND + 1)
    ends = [*range(_AROUND), *range(count - _AROUND, count)]
    return sorted({n for n in [*ends, *near] if 0 <= n < count})


def table_json(snapshots: Sequence[SnapshotInfo], current: int) -> Dict[str, Any]:
    """The object of `uffd snapshots -json`."""
    return {
        "schema": SCHEMA_VERSION,
        "current": current,
        "snapshots": [to_json(info) for info in snapshots],
    }
