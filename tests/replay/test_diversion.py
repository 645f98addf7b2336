"""Keeping and undoing: memory, mappings, and what a call leaves in the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal

import pytest
from harness.calls import Caller
from harness.telling import refused

from gdb_uffd.protocol.ends import Remark
from gdb_uffd.protocol.model import ENGINES, UffdError
from gdb_uffd.replay.interface import HARDWARE, WRITE_WATCH
from gdb_uffd.replay.trackers import kernel

PTRACE_PEEKUSER, DEBUG_REGISTERS = 3, 848
"""ptrace(2); the offset of u_debugreg in struct user (<sys/user.h>)."""


@pytest.fixture(params=[name for name in ENGINES if not kernel().failure(name)])
def caller(kernel_core, request):
    """One for each engine that works here."""
    made = Caller(kernel_core)
    made.diversion.set_engine(request.param)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "undisturbed"),
    [("open_file", 3), ("install_handler", 0), ("set_umask", 0o22), ("set_alarm", 0),
     ("block_usr2", 0)],
)  # fmt: skip
def test_an_undone_call_leaves_nothing_in_the_kernel(caller, name, undisturbed):
    first = caller.call(name)
    assert first == undisturbed or name == "set_umask"
    assert [caller.call(name) for _ in range(3)] == [first] * 3


def test_a_kept_call_leaves_what_it_did(caller):
    assert caller.call("open_file", keep=True) == 3
    assert caller.call("open_file", keep=True) == 4
    assert caller.call("block_usr2", keep=True) == 0
    assert caller.call("block_usr2", keep=True) == 1


def test_losing_kept_handlers_is_told(caller):
    caller.call("install_handler", keep=True)
    caller.call("bump")
    assert Remark("new-process") not in caller.reports[-1].remarks
    caller.call("map_and_keep")
    assert caller.reports[-1].remarks[0] == Remark("new-process")
    assert caller.call("install_handler") == 0


def test_kept_descriptors_survive_a_new_process(caller):
    assert caller.call("open_file", keep=True) == 3
    caller.call("map_and_keep")
    assert caller.call("open_file") == 4
    assert {remark.kind for remark in caller.reports[-1].remarks} <= {"engine"}


def test_kept_effects_survive_an_undone_change_of_the_layout(caller):
    assert caller.call("bump", keep=True) == 42
    mappings = list(caller.diversion.mappings())
    for _ in range(3):
        assert caller.call("map_and_keep") == 4 + 43
    assert caller.call("bump", keep=True) == 43
    assert list(caller.diversion.mappings()) == mappings
    assert caller.call("map_and_keep", keep=True) == 4 + 44
    assert caller.call("map_and_keep") == 4 + 45
    assert caller.call("read_counter") == 44
    caller.diversion.reset()
    assert caller.call("read_counter") == 41


def test_memory_and_registers_are_the_snapshot_s_again(caller):
    before = {m: caller.snapshot.read(m.start, m.end - m.start)
              for m in caller.snapshot.mappings if m.prot & 2 and not m.unavailable}  # fmt: skip
    registers = caller.diversion.registers(caller.tid)
    for name in ("bump", "grow_and_drop", "heap_up_and_down", "map_and_keep", "touch_vector"):
        caller.call(name)
        for m, data in before.items():
            assert caller.diversion.read_memory(m.start, m.end - m.start) == data, (name, m)
        assert caller.diversion.registers(caller.tid) == registers


def test_layout_calls_do_what_linux_does(caller):
    assert caller.call("grow_and_drop") == 560
    assert caller.call("heap_up_and_down") == 0
    assert caller.call("shared_and_huge") == 1203
    anonymous = [p for p in caller.reports[-1].pages if p.kind == "anonymous" and p.bytes_changed]
    assert len(anonymous) == 2, anonymous  # what was dropped reads as it began
    assert caller.call("drop_recorded") == -errno.EINVAL
    (line,) = refused(caller.reports[-1])
    assert re.fullmatch(r"madvise\(0x[0-9a-f]+, 4096, 4\) → EINVAL", line)


def test_what_is_dropped_of_recorded_shared_memory_stays(caller):
    for keep in (False, True):
        assert caller.call("drop_shared", keep=keep) == 2250
        assert not refused(caller.reports[-1])
    assert caller.call("drop_shared") == 5050
    caller.diversion.reset()
    assert caller.call("drop_shared") == 2250


def test_pages_that_move_and_leave_their_range(caller):
    moving = int.from_bytes(caller.diversion.read_memory(caller.symbol("moving"), 8), "little")
    for keep in (False, False, True):
        assert caller.diversion.read_memory(moving, 3 * 4096) == b"\3" * (3 * 4096)
        assert caller.call("move_and_stay", keep=keep) == 3300 + 70 + 2
        assert not refused(caller.reports[-1])
        emptied = [p.start for p in caller.reports[-1].pages if p.start - moving in (0, 4096, 8192)]
        assert emptied == [moving, moving + 4096, moving + 8192]
    kept = caller.diversion.read_memory(moving, 3 * 4096)
    assert kept == bytes(4096) + b"\7" + bytes(2 * 4096 - 1)
    assert caller.call("move_and_stay") == 72  # the zeros that are there by now go, too
    assert caller.diversion.read_memory(moving, 3 * 4096) == kept
    caller.diversion.reset()
    assert caller.diversion.read_memory(moving, 3 * 4096) == b"\3" * (3 * 4096)
    assert caller.call("move_new_and_stay") == 3400


def test_moves_that_linux_refuses_are_not_ours(caller):
    for which in range(3):
        assert caller.call("move_as_it_must_not", which) == -errno.EINVAL
        assert not refused(caller.reports[-1])


@pytest.mark.parametrize("name", ["stay_shared", "double_shared"])
def test_a_second_place_for_shared_memory_is_refused_by_name(caller, name):
    assert caller.call(name) == -errno.EINVAL
    (line,) = refused(caller.reports[-1])
    assert line.startswith("mremap(") and line.endswith("→ EINVAL")


def test_a_signal_to_itself_changes_no_register(caller):
    assert caller.call("signal_self_keeps_registers") == 1


def test_vector_registers_are_undone_unread(caller):
    recorded = caller.snapshot.threads[0].registers.xstate
    caller.call("touch_vector")
    caller.call("bump")
    assert caller.diversion.registers(caller.tid).xstate == recorded


def test_a_vessel_killed_between_calls(caller):
    caller.call("bump", keep=True)
    os.kill(caller.diversion.info()["vessel_pid"], signal.SIGKILL)
    os.waitid(os.P_PID, caller.diversion.info()["vessel_pid"], os.WEXITED | os.WNOWAIT)
    address = caller.symbol("counter")
    assert caller.diversion.read_memory(address, 4) == (41).to_bytes(4, "little")
    with pytest.raises(UffdError, match="killed from outside"):
        caller.diversion.begin()
    assert caller.call("bump") == 42


@pytest.mark.slow
def test_a_vessel_that_is_still_dying(caller):
    """Between the kill and its end, which takes a while where there is much memory, nothing can be
    asked of it, and nobody can wait for it."""
    for _ in range(20):
        caller.call("fill", 600, keep=True)
        vessel = caller.diversion.vessel
        os.kill(vessel.pid, signal.SIGKILL)
        with pytest.raises(UffdError, match="No such process"):
            vessel.gpr()
        assert vessel.was_killed()
        caller.diversion.reset()


def test_nothing_leaks(caller):
    caller.call("bump")
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        caller.call("map_and_keep")
        caller.call("open_file")
    caller.call("bump")
    assert len(os.listdir("/proc/self/fd")) <= count + 1


def test_pages_are_counted_by_what_differs(caller):
    caller.call("fill", 600)
    info = caller.diversion.info()
    assert info["dirty_pages"] == 0 and not caller.diversion.alive
    caller.call("bump", keep=True)
    assert caller.diversion.info()["dirty_pages"] > 0 and caller.diversion.alive


def test_a_watchpoint_outlives_the_vessel_and_a_bad_one(caller):
    caller.diversion.insert_breakpoint(WRITE_WATCH, caller.symbol("counter"), 4)
    with pytest.raises(UffdError, match="not an address"):
        caller.diversion.insert_breakpoint(HARDWARE, 0xFFFF800000000000, 1)
    for _ in range(2):
        stop = caller.start("map_and_keep")  # its undoing needs a new vessel
        assert (stop.breakpoint, stop.address) == ("watch", caller.symbol("counter"))
        caller.diversion.call_end()
        caller.diversion.end(False)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64's debug registers")
@pytest.mark.parametrize("length, said", [(1, 0b00), (2, 0b01), (4, 0b11), (8, 0b10)])
def test_a_watchpoint_is_as_long_as_the_object(caller, length, said):
    """DR7 has R/W and LEN of each from bit 16 on (Intel SDM vol. 3, 18.2.4)."""
    peek = ctypes.CDLL(None, use_errno=True).ptrace
    peek.restype, peek.argtypes = ctypes.c_ulong, [ctypes.c_ulong] * 4
    caller.diversion.insert_breakpoint(WRITE_WATCH, caller.symbol("moving"), length)
    caller.call("bump")
    control = peek(PTRACE_PEEKUSER, caller.diversion.vessel.pid, DEBUG_REGISTERS + 7 * 8, 0)
    assert control & 3 and control >> 16 & 15 == said << 2 | 1
    caller.diversion.remove_breakpoint(WRITE_WATCH, caller.symbol("moving"), length)


def test_a_wait_on_the_own_stack_pointer_is_no_mapping(caller):
    registers = caller.diversion.registers(caller.tid).copy()
    stack = next(m for m in caller.snapshot.mappings if m.name == "[stack]")
    registers.gpr[registers.arch.sp] = stack.start - (9 << 20)
    caller.diversion.set_registers(caller.tid, registers)
    with pytest.raises(UffdError, match="not mapped"):
        caller.diversion.write_memory(stack.start - (9 << 20), b"x")


def test_the_pages_of_a_new_mapping_know_where_it_begins(caller):
    caller.call("map_and_keep")
    report = caller.reports[-1]
    caller.diversion.refine(report)
    new = [p for p in report.pages if p.mapping_start and p.mapping_start != p.start]
    starts = {p.mapping_start for p in new if p.bytes_changed == 4096}
    assert len(starts) == 1 and sum(p.mapping_start in starts for p in report.pages) >= 256


def test_the_mappings_are_the_recorded_ones_and_what_was_made(caller):
    recorded = [m for m in caller.snapshot.mappings if not m.name.startswith("[v")]
    caller.call("bump", keep=True)
    assert [m for m in caller.diversion.mappings() if not m.name.startswith("[v")] == recorded
    assert caller.call("map_and_keep", keep=True) == 4 + 43
    (made,) = [
        (m.end - m.start, m.prot, m.name, m.offset)
        for m in caller.diversion.mappings()
        if m not in recorded and not m.name.startswith("[v")
    ]
    assert made == (1 << 20, 3, "", 0)
