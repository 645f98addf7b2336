"""Recording in gdb: what is typed, what is said, and what the trace then holds."""

from __future__ import annotations

import contextlib
import errno
import re
import struct
import subprocess
from pathlib import Path
from typing import Callable, List

import pytest
from harness import ROOT, gdbs, survivors
from harness.gdbs import Gdb

from gdb_uffd import trace
from gdb_uffd.protocol.model import GPR, PAGE_SIZE

SNAPSHOT = re.compile(
    r'^snapshot (\d+)(?: "(.*)")?: ([\d,]+) pages? changed, pause [\d.]+ m?s$', re.M
)


@pytest.fixture
def live(start_gdb, built) -> Callable[..., Gdb]:
    """A gdb on a program of tests/programs, stopped at a breakpoint that is deleted again."""

    def begin(program: str, where: str, arguments: str = "", keep: bool = False) -> Gdb:
        session = start_gdb(arguments=[str(built / program)])
        session.run(f"break {where}")
        stopped = session.run(f"run {arguments}")
        assert "Breakpoint 1" in stopped, session.transcript
        if not keep:
            session.run("delete 1")
        return session

    return begin


def record(session: Gdb, path: Path, tracked: bool = True) -> None:
    said = session.run(f"uffd record start {path}")
    assert said.startswith("recording to") and ("are tracked" in said) == tracked, said


def snapshots(path: Path) -> "trace.Trace":
    return trace.open(str(path if path.suffix else path.with_suffix(".uffd")))


def symbol(snapshot: "trace.Snapshot", name: str) -> int:
    found = snapshot.symbol(name)
    assert found is not None, name
    return found


def number(snapshot: "trace.Snapshot", name: str, index: int = 0) -> int:
    """A global long."""
    return struct.unpack("<q", snapshot.read(symbol(snapshot, name) + 8 * index, 8))[0]


def beats(path: Path) -> List[int]:
    """`beats` of tests/programs/pulse.c at each snapshot."""
    opened = snapshots(path)
    return [number(opened.snapshot(i.number), "beats") for i in opened.snapshots]


def test_snapshots_by_hand(live, tmp_path):
    session = live("pulse", "beat", "20", keep=True)
    record(session, tmp_path / "t")
    first = SNAPSHOT.search(session.run("uffd record snapshot before anything"))
    assert first and first[1] == "0" and first[2] == "before anything"
    session.run("continue 3")
    second = SNAPSHOT.search(session.run("uffd record snapshot"))
    assert second and second[1] == "1" and second[2] is None
    assert int(second[3].replace(",", "")) < int(first[3].replace(",", ""))
    shown = session.run("uffd info")
    assert "2 snapshots" in shown and "last pause" in shown and "are tracked" in shown
    facts = session.json("uffd info -json")["recording"]
    assert facts["snapshots"] == 2 and facts["tracked"] and facts["pages_stored"] > 0
    assert "2 snapshots in" in session.run("uffd record stop")
    assert "nothing is recorded" in session.run("uffd record snapshot")
    opened = snapshots(tmp_path / "t")
    infos = opened.snapshots
    assert [i.label for i in infos] == ["before anything", ""]
    assert all(i.function == "beat" and i.threads == 4 and i.pause_us > 0 for i in infos)
    assert infos[0].time_ns < infos[1].time_ns and infos[0].tid == infos[0].pid
    session.run("kill")
    assert "snapshot" in session.run(f"uffd spawn {tmp_path / 't.uffd'}")
    assert session.value("beats") == "0"


def test_threads_stand_still_together(live, tmp_path):
    """In each snapshot a thread's register and what it has just stored belong together."""
    session = live("pulse", "beat", "60")
    record(session, tmp_path / "t")
    session.run("uffd record at beat")
    assert "60 beats" in session.run("continue")
    opened = snapshots(tmp_path / "t")
    assert len(opened.snapshots) == 59
    for info in opened.snapshots:
        snapshot = opened.snapshot(info.number)
        counts = [number(snapshot, "counts", i) for i in range(3)]
        registers = [t.registers.gpr[GPR["r12"]] for t in snapshot.threads[1:]]
        # Threads are in no particular order; no two are at the same count.
        for count in counts:
            assert any(r - count in (0, 1) for r in registers), (info, counts, registers)


def test_a_program_that_ends_as_it_is_frozen(live, tmp_path):
    """It has no thread any more; that was an IndexError now and then."""
    session = live("pulse", "beat", "20 0")
    record(session, tmp_path / "t")
    session.run("python from gdb_uffd.client.recording.freeze import Freezer")
    session.run("python Freezer.freeze = lambda self, inferior: []")
    assert session.run("uffd record snapshot").strip() == "the program has just ended"
    assert "0 snapshots in" in session.run("uffd record stop")


def test_at_every_and_max(live, tmp_path):
    session = live("pulse", "beat", "20 0")
    record(session, tmp_path / "t")
    assert "Breakpoint 2" in session.run("uffd record at beat if number % 2 == 0 every 3 max 2")
    listed = session.run("info breakpoints")
    assert "uffd record at beat if number % 2 == 0 every 3 max 2" in listed
    text = session.run("continue")
    assert "20 beats" in text and "2 snapshots in" in text and "Breakpoint" not in text
    # Hits with an even number: 2, 4, 6*, 8, 10, 12*; `beats` is still the number before.
    assert beats(tmp_path / "t") == [5, 11]
    assert "beat" not in session.run("info breakpoints")


def test_a_users_breakpoint_at_the_same_place_still_stops(live, tmp_path):
    session = live("pulse", "beat", "20 0", keep=True)
    record(session, tmp_path / "t")
    session.run("uffd record at beat")
    for _ in range(3):
        assert "Breakpoint 1, beat" in session.run("continue")
    session.run("disable 1")
    assert "20 beats" in session.run("continue")
    assert beats(tmp_path / "t") == list(range(19))


def test_next_and_finish_go_on_over_a_snapshot(live, tmp_path):
    session = live("pulse", "linger", "1000 3 1")
    record(session, tmp_path / "t")
    session.run("uffd record at beat")
    assert "main (" in session.run("finish")
    for _ in range(8):  # every other one calls beat, which takes a snapshot
        said = without_progress(session.run("next"))
        assert re.match(r"\d+\t", said), said
    session.run("tbreak linger")
    session.run("continue")
    session.run("uffd record at 57")  # inside of main: `finish` is cut short nowhere
    assert "Run till exit" in session.run("finish")
    assert "main (" in session.run("frame")
    session.run("kill")
    taken = beats(tmp_path / "t")
    assert taken == list(range(len(taken))) and len(taken) >= 3


def without_progress(text: str) -> str:
    """What gdb said, without our lines about how far the recording is."""
    return "".join(x for x in text.splitlines(True) if not x.startswith("[uffd: "))


def test_every(live, tmp_path):
    session = live("pulse", "beat", "40 3 10")
    record(session, tmp_path / "t")
    session.run("uffd record every 5ms")
    text = session.run("continue", 30)
    assert "40 beats" in text and "interrupted" not in text
    assert not re.search("SIG|Breakpoint", text), text
    opened = snapshots(tmp_path / "t")
    assert len(opened.snapshots) > 10
    assert {i.function for i in opened.snapshots} & {
        "beat",
        "linger",
        "run",
        "clock_nanosleep",
    } or all(i.function for i in opened.snapshots)
    taken = beats(tmp_path / "t")
    assert taken == sorted(taken) and taken[-1] > taken[0]
    for info in opened.snapshots[:20]:
        snapshot = opened.snapshot(info.number)
        registers = [t.registers.gpr[GPR["r12"]] for t in snapshot.threads]
        for index in range(3):
            count = number(snapshot, "counts", index)
            assert any(r - count in (0, 1) for r in registers), (info, registers)


def test_every_does_not_lose_a_next_or_a_ctrl_c(live, tmp_path):
    session = live("pulse", "linger", "1000 3 30")
    record(session, tmp_path / "t")
    session.run("uffd record every 2ms")
    session.run("finish")
    for _ in range(12):
        said = without_progress(session.run("next"))
        assert re.match(r"\d+\t", said), said
    session.send("continue")
    before = facts = None
    survivors.until(lambda: (tmp_path / "t.uffd").exists())
    assert "SIGINT" in session.interrupt()
    before = session.json("uffd info -json")["recording"]["snapshots"]
    assert before > 0
    facts = session.json("uffd info -json")["recording"]["snapshots"]
    assert facts == before, "the program stands: nothing is to be recorded"
    session.run("kill")


def test_in_a_script_of_gdb(gdb_path, built, tmp_path, start_gdb):
    session = start_gdb()
    script = tmp_path / "script"
    script.write_text(
        f"file {built / 'pulse'}\nbreak main\nrun 20 0\nuffd record start {tmp_path / 't'}\n"
        "uffd record at beat every 4\nbreak linger\ncontinue\necho after\\n\n"
    )
    text = session.run(f"source {script}")
    assert "20 beats" in text and text.index("5 snapshots in") < text.index("after")
    assert beats(tmp_path / "t") == [2, 6, 10, 14, 18]


def test_breakpoints_are_not_in_the_trace(live, built, tmp_path):
    session = live("pulse", "beat", "20", keep=True)
    session.run("set breakpoint always-inserted on")
    session.run("break linger")
    record(session, tmp_path / "t")
    session.run("uffd record snapshot")
    session.run("uffd record at beat")
    session.run("disable 1")
    session.run("tbreak beat if number == 9")
    session.run("continue")
    session.run("uffd record snapshot")
    session.run("uffd record stop")
    session.run("kill")
    opened = snapshots(tmp_path / "t")
    image = (built / "pulse").read_bytes()
    for info in opened.snapshots:
        snapshot = opened.snapshot(info.number)
        text = next(m for m in snapshot.mappings if m.name.endswith("/pulse") and m.prot & 4)
        length = text.end - text.start
        assert snapshot.read(text.start, length) == image[text.offset : text.offset + length].ljust(
            length, b"\0"
        ), info
    stored = (tmp_path / "t.uffd" / "pages").read_bytes()
    pages = [stored[i : i + PAGE_SIZE] for i in range(PAGE_SIZE, len(stored), PAGE_SIZE)]
    start = next(m for m in opened.snapshot(0).mappings if m.name.endswith("/pulse") and m.prot & 4)
    beat = symbol(opened.snapshot(0), "beat") - start.start + start.offset
    page = beat & -PAGE_SIZE
    original = image[page : page + PAGE_SIZE]
    # Nor is a page of code with one in it anywhere in the file.
    assert not [p for p in pages if p != original and sum(a != b for a, b in zip(p, original)) < 16]


@pytest.mark.every_gdb
@pytest.mark.parametrize("kind", ["avx", "avx512"])
def test_registers_are_those_of_the_live_process(start_gdb, gdb_path, built, tmp_path, kind):
    if gdbs.version(gdb_path) < (14, 0):
        pytest.skip(
            "this gdb does not know where newer CPUs keep these registers of a live process"
        )
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if {"avx": "avx", "avx512": "avx512f"}[kind] not in flags:
        pytest.skip(f"this CPU has no {kind}")
    session = start_gdb(arguments=[str(built / "vector")])
    assert "SIGILL" in session.run(f"run {kind}")
    record(session, tmp_path / "t")
    session.run("uffd record snapshot")
    every = "info registers all"
    alive = session.run(every)
    signal = session.run("print $_siginfo")
    session.run("uffd record stop")
    session.run("kill")
    session.run(f"uffd spawn {tmp_path / 't.uffd'}")
    wanted, got = (
        dict(re.findall(r"^(\S+) +(.*)$", text, re.M)) for text in (alive, session.run(every))
    )
    differs = {n: (wanted[n], got.get(n)) for n in got if wanted.get(n) != got[n]}
    assert not differs
    assert {"rip", "fs_base", "mxcsr", "st7"} <= got.keys() == wanted.keys()
    assert got.keys() & {"ymm15", "zmm15"}  # gdb lists the widest
    assert "zmm31" in got or kind == "avx"
    assert session.run("print $_siginfo").partition("= ")[2] == signal.partition("= ")[2]


def test_thread_registers_and_names(live, tmp_path):
    session = live("pulse", "beat", "20")
    record(session, tmp_path / "t")
    session.run("thread 2")
    session.run("uffd record snapshot")
    asked = ["thread apply all info registers rip rsp rbp r12 eflags fs_base", "bt"]
    alive = [session.run(a) for a in asked]
    session.run("uffd record stop")
    session.run("kill")
    session.run(f"uffd spawn {tmp_path / 't.uffd'}")
    spawned = [session.run(a) for a in asked]
    wanted, got = (
        sorted(re.findall(r"^(?:rip|rsp|rbp|r12|eflags|fs_base) +.*$", t, re.M))
        for t in (alive[0], spawned[0])
    )
    assert wanted == got and len(got) == 6 * 4
    assert "run (argument" in session.run("frame")  # the selected thread is selected again
    assert spawned[1].count("#") == alive[1].count("#")


WAITS = ["nanosleep", "read", "poll", "ppoll", "pselect", "futex", "wait"]


@pytest.mark.parametrize("how", WAITS)
def test_a_thread_that_waits_in_the_kernel_notices_nothing(start_gdb, built, tmp_path, how):
    with subprocess.Popen(
        [built / "waits", how, "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "waiting\n"
        session = start_gdb()
        session.run(f"attach {process.pid}")
        record(session, tmp_path / "t")
        session.run("uffd record snapshot")
        session.run("uffd record stop")
        session.run("detach")
        with contextlib.suppress(BrokenPipeError):  # it may be over by now
            process.stdin.write("x")
            process.stdin.close()
        said = process.stdout.read()
    result, failed = (-1, errno.ETIMEDOUT) if how == "futex" else (int(how == "read"), 0)
    when = said.split(", ")[1] if how in ("read", "wait") else "in time"  # these end when we say so
    assert said == f"{how}: {result} errno {failed}, {when}, 2 descriptors\n"


@pytest.mark.every_gdb
def test_another_inferior_is_no_part_of_the_recording(live, gdb_path, built, tmp_path):
    if gdbs.version(gdb_path) < (14, 0):
        pytest.skip("gdb 13 does not always come back from starti in a second inferior")
    session = live("rounds", "tick", "4", keep=True)
    record(session, tmp_path / "one")
    session.run("uffd record at add max 3")
    session.run(f"add-inferior -exec {built / 'sample'}")
    session.run("inferior 2")
    session.run("starti")
    said = session.run("uffd record snapshot wrong")
    assert "inferior 1" in said and "\n" not in said.strip(), said
    session.run("kill")
    session.run("inferior 1")
    assert SNAPSHOT.search(session.run("uffd record snapshot right"))
    session.run("uffd record stop")
    opened = snapshots(tmp_path / "one")
    assert [s.label for s in opened.snapshots] == ["right"]
    opened.close()


@pytest.mark.every_gdb
def test_a_script_that_ends_with_the_program_ends_well(gdb_path, built, tmp_path):
    """gdb 13 crashes at its exit when an event of Python's is left over."""
    script = tmp_path / "script.gdb"
    script.write_text(
        "break tick\nrun 4\ndelete 1\n"
        f"uffd record start {tmp_path}/t\nuffd record at tick max 2\nuffd record at add max 5\n"
        "continue\n"
    )
    done = subprocess.run(
        [gdb_path, "-nx", "-batch", "-iex", "set debuginfod enabled off"]
        + ["-x", str(ROOT / "gdbinit.example"), "-x", str(script), str(built / "rounds")],
        capture_output=True, text=True, env=gdbs.environment(tmp_path / "home"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "recording ended: the program exited with code 0; 7 snapshots" in done.stdout


def test_what_the_kernel_writes_past_the_page_tables(start_gdb, built, tmp_path):
    session = start_gdb(arguments=[str(built / "uring")])
    session.run("break filled")
    if "Breakpoint 1" not in session.run("run"):
        pytest.skip("no io_uring here")
    record(session, tmp_path / "t")
    session.run("uffd record at filled")
    session.run("uffd record snapshot")
    session.run("delete 1")
    assert "5 snapshots in" in session.run("continue")
    opened = snapshots(tmp_path / "t")
    seen = b""
    for info in opened.snapshots:
        snapshot = opened.snapshot(info.number)
        assert info.threads == 1  # the kernel's workers are none
        buffer = int.from_bytes(snapshot.read(symbol(snapshot, "buffer"), 8), "little")
        seen += snapshot.read(buffer + 4095, 1)
    assert seen == b"zbcde"
