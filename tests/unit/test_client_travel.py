"""Names, ranges, tables and sparklines of snapshots; no gdb."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdb_uffd.client.show import differences, snapshots, timeline
from gdb_uffd.client.show.report_text import NamedChange
from gdb_uffd.client.show.sparkline import sparkline
from gdb_uffd.client.show.text import Look
from gdb_uffd.client.show.timeline import Point, Timeline
from gdb_uffd.protocol.codec import from_json, to_json
from gdb_uffd.protocol.messages_travel import Differences, SnapshotList
from gdb_uffd.protocol.model import SnapshotInfo, UffdError

LABELS = ["begin", "", "after insert", "hit", "hit", "a-b", "7", "end of it"]
START = 1_700_000_000 * 10**9


def made(labels: Optional[List[str]] = None, step_ns: int = 10**7) -> List[SnapshotInfo]:
    return [
        SnapshotInfo(
            n, START + n * step_ns, 5 + n * step_ns, label, 41, 42, "main", "push", 2, 100 + n
        )
        for n, label in enumerate(labels if labels is not None else LABELS)
    ]


@pytest.mark.parametrize(
    "name, number",
    [
        ("0", 0), ("5", 5), ("+1", 4), ("-3", 0), ("+0", 3), ("start", 0), ("end", 7),
        ("begin", 0), ("after insert", 2), ('"after insert"', 2), ("'a-b'", 5), ("a-b", 5),
        ('"7"', 6), ("7", 7), (" begin ", 0), ("end of it", 7),
    ],
)  # fmt: skip
def test_find(name: str, number: int) -> None:
    assert snapshots.find(made(), name, 3) == number


@pytest.mark.parametrize(
    "name, words",
    [
        ("8", "no snapshot 8: there are 0 to 7"),
        ("-4", "no snapshot -1"),
        ("+5", "no snapshot 8"),
        ("hit", '"hit" is the label of several (3, 4): name a number'),
        ("", 'no snapshot "": there are 0 to 7'),
        ('""', 'no snapshot ""'),
        ("nowhere", '"begin", "after insert", "hit", "a-b", "7", "end of it"'),
        ("9999999999", "no snapshot"),
        ("\x1b[31m", '"^[[31m"'),
    ],
)
def test_find_nothing(name: str, words: str) -> None:
    with pytest.raises(UffdError) as error:
        snapshots.find(made(), name, 3)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_find_without_labels() -> None:
    with pytest.raises(UffdError, match="only 0, start, end; none has a label"):
        snapshots.find(made([""]), "x", 0)


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("2..4", [2, 3, 4]), ("2 .. 4", [2, 3, 4]), ("2-4", [2, 3, 4]), ("6..", [6, 7]),
        ("..1", [0, 1]), ("..", list(range(8))), ("3", [3]), ("a-b", [5]), ("-1", [2]),
        ("begin-a-b", [0, 1, 2, 3, 4, 5]), ("a-b..end", [5, 6, 7]), ("start-2", [0, 1, 2]),
        ('"after insert".."a-b"', [2, 3, 4, 5]), ("-1..+1", [2, 3, 4]), ("4..4", [4]),
    ],
)  # fmt: skip
def test_ranges(text: str, numbers: List[int]) -> None:
    assert list(snapshots.find_range(made(), text, 3)) == numbers


@pytest.mark.parametrize("text", ["4..2", "4-2", "2..9", "2-9", "x..y", "nowhere", "9"])
def test_no_range(text: str) -> None:
    with pytest.raises(UffdError):
        snapshots.find_range(made(), text, 3)


@pytest.mark.parametrize(
    "text, pair",
    [
        ("counter", ("counter", "")),
        ("f(x) in 2..4", ("f(x)", "2..4")),
        ('puts("a in b")', ('puts("a in b")', "")),
        ('puts("a in b") in "after insert"..', ('puts("a in b")', '"after insert"..')),
        ("in 2", ("in 2", "")),
        ("x in y in 3", ("x in y", "3")),
    ],
)
def test_split_range(text: str, pair: tuple) -> None:
    assert snapshots.split_range(text) == pair


def test_split_names() -> None:
    assert snapshots.split_names('3 "after insert" end') == ["3", '"after insert"', "end"]


def test_completions() -> None:
    assert snapshots.completions(made(), "a") == ["after insert", "a-b"]
    assert snapshots.completions(made(), "en") == ["end of it", "end"]
    many = made([""] * 500)
    assert snapshots.completions(many, "") == ["start", "end"]
    assert snapshots.completions(many, "49") == ["49", *(str(n) for n in range(490, 500))]


@pytest.mark.parametrize(
    "ns, text",
    [
        (0, "0 ms"), (12_345, "0.0 ms"), (340_000, "0.3 ms"), (12_500_000, "12.5 ms"),
        (250_000_000, "250 ms"), (1_250_000_000, "1.250 s"), (90 * 10**9, "90.000 s"),
    ],
)  # fmt: skip
def test_duration(ns: int, text: str) -> None:
    assert snapshots.duration(ns) == text


def test_after_is_by_the_clock_that_is_never_set() -> None:
    first = SnapshotInfo(0, START, 1000, pid=1)
    assert snapshots.after(first, SnapshotInfo(1, START - 10**9, 1000 + 10**6, pid=1)) == "+1.0 ms"
    assert snapshots.after(first, SnapshotInfo(1, START + 10**9, 7, pid=2)) == "+1.000 s"
    assert snapshots.after(first, SnapshotInfo(1)) == ""
    assert snapshots.clock(0) == snapshots.day(0) == ""


def test_headline() -> None:
    line = snapshots.headline(made(), 2, Look())
    assert re.fullmatch(r'snapshot 2 of 0-7 "after insert" · \d\d:\d\d:20.020 · \+20.0 ms', line)
    crashed = [SnapshotInfo(0, label="x\x1b", signal=11)]
    line = snapshots.headline(crashed, 0, Look(unicode=False))
    assert line == 'snapshot 0 of 0-0 "x^[" . SIGSEGV'


def test_table() -> None:
    lines = snapshots.table(made(), 2, Look())
    assert re.match(r"\d{4}-\d\d-\d\d$", lines[0])
    assert lines[1].split() == "Num Time After Thread Function Changed Label".split()
    assert [line[0] for line in lines[2:]] == [" ", " ", "*", *" " * 5]
    assert "push ()" in lines[2] and '42 "main"' in lines[2] and '"begin"' in lines[2]


def test_table_of_many() -> None:
    many = made([""] * 1000)
    lines = snapshots.table(many, 500, Look())
    assert len(lines) < 60
    assert sum("more: `uffd snapshots -full`" in line for line in lines) == 2
    hidden = sum(int(m[1]) for m in re.finditer(r"… (\d+) more", "\n".join(lines)))
    assert hidden + len(lines) - 4 == 1000
    assert len(snapshots.table(many, 500, Look(), True)) == 1002


def test_a_long_function_does_not_break_the_table():
    every = [dataclasses.replace(info, function="__pthread_kill_implementation") for info in made()]
    lines = snapshots.table(every, 2, Look(width=80))
    assert max(map(len, lines)) < 80
    assert len([line for line in lines if re.search(r" __pthread_\w+… +\d+", line)]) == len(every)
    assert all(snapshots.table(every, 2, Look(width=40))), "no empty lines"


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100])
@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize(
    "label, thread",
    [("begin", "main"), ("a label of the user's that goes on", "main"), ("標" * 20, "線" * 8)],
)
def test_a_snapshot_is_a_line_at_any_width(width, unicode, label, thread):
    every = [
        dataclasses.replace(
            info, label=label, thread_name=thread, function="__pthread_kill_implementation"
        )
        for info in made()
    ]
    look = Look(width=width, unicode=unicode)
    lines = snapshots.table(every, 2, look)
    assert len(lines) == len(every) + 2, lines
    assert all(look.fits(line) for line in lines), lines
    assert all(str(n) in line.split()[:2] for n, line in enumerate(lines[2:]))
    for word in ("Num", "After", "Function", "Label", *(["Changed"] if width >= 60 else [])):
        assert word in lines[1], lines
    whole = "".join("".join(snapshots.table(every, 2, look, True)).split())
    assert "".join(look.plain(label).split()) in whole


def test_one_label_is_one() -> None:
    with pytest.raises(UffdError, match=r'and the label "begin"$'):
        snapshots.find(made(["begin", ""]), "nope", 0)
    with pytest.raises(UffdError, match=r'and the labels "a", "b"$'):
        snapshots.find(made(["a", "b"]), "nope", 0)


@given(st.integers(1, 300), st.data())
def test_elided_rows_hold_the_ends_and_the_present_one(count: int, data: st.DataObject) -> None:
    current = data.draw(st.integers(0, count - 1))
    shown = snapshots.elide(count, current)
    assert shown == sorted(set(shown)) and {0, count - 1, current} <= set(shown)


def test_parse_snapshots() -> None:
    reply = {"snapshots": json.loads(json.dumps(to_json(made()))), "current": 0}
    assert from_json(SnapshotList, reply).snapshots == made()
    for bad in ({}, {"snapshots": []}, {"snapshots": [{"number": 0}]}, None, {"snapshots": [1]}):
        with pytest.raises(UffdError):
            from_json(SnapshotList, bad)
    reply["snapshots"][3]["number"] = 9
    with pytest.raises(UffdError, match="not numbered from 0"):
        from_json(SnapshotList, reply)


@pytest.mark.parametrize(
    "values, line",
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
        ([5, 5, 5], "▁▁▁"),
        ([0, None, 1], "▁ █"),
        ([], ""),
        ([None, None], ""),
        ([1.0, float("nan"), float("inf"), 2.0], "▁  █"),
        ([-1e308, 1e308], "▁█"),
        ([1, 10**400], "▁ "),
    ],
)
def test_sparkline(values: list, line: str) -> None:
    assert sparkline(values, 0, True) == line


def test_sparkline_of_many_is_as_wide_as_asked() -> None:
    assert sparkline(list(range(1000)), 8, True) == "▁▂▃▄▅▆▇█"
    assert sparkline(list(range(1000)), 8, False) == "_.,:-=+#"


@given(
    st.lists(st.none() | st.floats() | st.integers(), max_size=200),
    st.integers(0, 50),
    st.booleans(),
)
def test_sparkline_of_anything(values: list, width: int, unicode: bool) -> None:
    line = sparkline(values, width, unicode)
    assert line == "" or len(line) == (min(width, len(values)) if width else len(values))
    assert unicode or line.isascii()


def points(values: List[str]) -> List[Point]:
    return [Point(n, v, "int", int(v) if v.isdigit() else None) for n, v in enumerate(values)]


def test_timeline() -> None:
    every = made()
    line = Timeline("x", [*points(["1", "2"]), Point(2, error="would exit"), Point(3, "{a = 1}")])
    text = timeline.lines(line, every, Look())
    assert text[0].split() == ["0", '"begin"', "1"]
    assert text[1].split() == ["1", "+10.0", "ms", "2"]
    assert text[2].endswith("<would exit>") and text[3].endswith("{a = 1}")
    assert text[4] == "▁█    1 … 2"


def test_timeline_of_one_number_has_no_sparkline() -> None:
    assert len(timeline.lines(Timeline("x", points(["1"])), made(), Look())) == 1


def test_equal_neighbours_are_one_row_with_the_labels_of_both() -> None:
    every = made()
    line = Timeline("x", points(["1", "1", "1"]))
    (row,) = timeline.lines(line, every, Look())
    assert row == '0-2  "begin" … "after insert"  1'
    assert len(timeline.lines(line, every, Look(), True)) == 3


def test_what_changed_in_a_value_is_in_colour() -> None:
    line = Timeline("x", points(["{a = 1, b = 2}", "{a = 1, b = 3}", "4"]))
    text = timeline.lines(line, made(), Look(colour=True))
    assert "\x1b" not in text[0] and text[1].endswith("{a = 1, b = \x1b[32m3}\x1b[m")
    assert text[2].endswith("\x1b[32m4\x1b[m")


def test_timeline_of_many_folds_what_stays() -> None:
    every = made([""] * 1000)
    line = Timeline("x", points(["1"] * 400 + ["2"] * 599 + ["3"]))
    text = timeline.lines(line, every, Look())
    assert [row.split()[0] for row in text[:3]] == ["0-399", "400-998", "999"] and len(text) == 4
    assert len(timeline.lines(line, every, Look(), True)) == 1001


def test_timeline_of_many_loses_its_middle() -> None:
    every = made([""] * 1000)
    line = Timeline("x", points([str(n) for n in range(1000)]))
    text = timeline.lines(line, every, Look(width=80))
    assert len(text) == 42 and "… 960 more: `uffd map -full`" in text[20]
    assert all(Look(width=80).fits(row) for row in text)


def test_timeline_json() -> None:
    line = Timeline("x", [*points(["1"]), Point(1, error="no")], interrupted=True)
    data = timeline.as_json(line, made())
    assert data["interrupted"] and data["points"][0]["value"] == "1"
    assert data["points"][1] == {
        "snapshot": 1, "label": "", "time_ns": START + 10**7, "value": None, "type": None,
        "error": "no",
    }  # fmt: skip


def differing(**changes: object) -> Differences:
    group = {
        "kind": "data", "mapping": "/usr/bin/x", "thread": None, "pages": 2, "compared": 2,
        "bytes_changed": 9, "came": 0, "went": 0,
    }  # fmt: skip
    stack = {**group, "kind": "stack", "mapping": "", "thread": 42, "came": 1, "compared": 0}
    reply = {"pages": 4, "same_process": True, "groups": [group, stack], "data": [], **changes}
    return from_json(Differences, reply)


def test_differences() -> None:
    every = made()
    changes = [NamedChange("counter", "int", "1", "2", 4), NamedChange("blob", "", "", "", 17)]
    text = differences.lines(
        differing(), (every[0], every[2]), changes, lambda tid: f"TID {tid}", Look()
    )
    assert text == [
        '4 pages (16.0 KiB) differ from snapshot 0 "begin" to 2 "after insert" (+20.0 ms)',
        "  data  x              2 pages  9 B",
        "  stack thread TID 42  2 pages  1 new",
        "  counter  1 → 2",
        "  blob     17 bytes differ",
    ]
    data = differences.as_json(differing(), (every[0], every[2]), changes)
    assert data["variables"][0] == {"name": "counter", "type": "int", "before": "1", "after": "2"}
    assert data["groups"][1]["thread"] == 42


def test_differences_none_and_many() -> None:
    every = made()
    pair = every[0], every[1]
    none = differing(pages=0, groups=[])
    assert "nothing differs" in differences.lines(none, pair, [], str, Look())[0]
    many = [NamedChange(f"v{n}", "int", "1", "2", 4) for n in range(100)]
    text = differences.lines(differing(same_process=False), pair, many, str, Look())
    assert "  … 60 more variables: `uffd changes -full`" in text and "another process" in text[-1]
    assert len(differences.lines(differing(), pair, many, str, Look(), True)) == 103


@pytest.mark.parametrize("reply", [None, {}, {"pages": 1, "groups": [{}]}, {"pages": "x"}])
def test_differences_that_are_none(reply: object) -> None:
    with pytest.raises(UffdError, match="is not "):
        from_json(Differences, reply)
