"""The packets that lldb alone sends, against a diversion that runs nothing."""

from __future__ import annotations

import json
from typing import Iterator

import pytest
from server_fakes import CODE, PID, STACK, TIDS, FakeDiversion, RawClient, serving

from gdb_uffd.protocol.ends import End
from gdb_uffd.protocol.model import GPR
from gdb_uffd.replay.interface import Resume, Stop, StubClient
from gdb_uffd.server.stub.framing import unescape

SYSCALL = CODE + 0x123
T2 = b"p%x.%x" % (PID, TIDS[1])


@pytest.fixture
def client() -> Iterator[RawClient]:
    with serving() as connected:
        yield connected


def fields(reply: bytes | None) -> dict[str, str]:
    assert reply is not None
    pairs = reply.decode().strip(";").split(";")
    return dict(pair.split(":", 1) for pair in pairs)


def text(hexadecimal: str) -> str:
    return bytes.fromhex(hexadecimal).decode()


def test_the_machine_and_the_process(client: RawClient) -> None:
    for packet in (b"qHostInfo", b"qProcessInfo"):
        told = fields(client.ask(packet))
        assert text(told["triple"]) == "x86_64-pc-linux-gnu"
        assert told["ptrsize"] == "8" and told["endian"] == "little"
    assert int(fields(client.ask(b"qProcessInfo"))["pid"], 16) == PID
    assert client.ask(b"qWatchpointSupportInfo:") == b"num:4;"


def test_regions_and_gaps_cover_all_addresses(client: RawClient) -> None:
    assert client.ask(b"qMemoryRegionInfo") == b"OK"
    at, seen = 0, []
    while at < 1 << 64:
        told = fields(client.ask(b"qMemoryRegionInfo:%x" % at))
        assert int(told["start"], 16) <= at
        end = int(told["start"], 16) + int(told["size"], 16)
        assert end > at
        seen.append((int(told["start"], 16), told.get("permissions"), told.get("name")))
        at = end
    assert (CODE, "rx", b"/usr/bin/fake".hex()) in seen
    assert (STACK, "rw", b"[stack]".hex()) in seen
    assert seen[0] == (0, None, None) and seen[-1] == (STACK + 0x1000, None, None)
    assert fields(client.ask(b"qMemoryRegionInfo:%x" % (CODE + 5)))["start"] == f"{CODE:x}"
    assert (client.ask(b"qMemoryRegionInfo:zz") or b"").startswith(b"E")


def test_where_a_file_was_loaded(client: RawClient) -> None:
    assert client.ask(b"qFileLoadAddress:" + b"/usr/bin/fake".hex().encode()) == b"%x" % CODE
    for wrong in (b"/no/such", b""):
        reply = client.ask(b"qFileLoadAddress:" + wrong.hex().encode())
        assert (reply or b"").startswith(b"E"), wrong
    assert (client.ask(b"qFileLoadAddress:xyz") or b"").startswith(b"E")


def test_how_threads_stand(client: RawClient) -> None:
    assert (client.ask(b"qThreadStopInfo%x" % TIDS[0]) or b"").startswith(b"T0bhexname:7430;")
    assert (client.ask(b"qThreadStopInfo" + T2) or b"").startswith(b"T00")
    assert json.loads(unescape(client.ask(b"jThreadsInfo") or b"")) == [
        {"tid": TIDS[0], "signal": 11, "name": "t0"},
        {"tid": TIDS[1], "name": "t1"},
        {"tid": TIDS[2], "name": "t2"},
    ]
    assert (client.ask(b"vCont;s:" + T2) or b"").startswith(b"T05")
    assert (client.ask(b"qThreadStopInfo%x" % TIDS[0]) or b"").startswith(b"T00")
    assert [e.get("signal") for e in json.loads(unescape(client.ask(b"jThreadsInfo") or b""))] == [
        None, 5, None,
    ]  # fmt: skip
    for wrong in (b"", b"-1", b"0", b"77"):
        assert (client.ask(b"qThreadStopInfo" + wrong) or b"").startswith(b"E"), wrong
    assert client.ask(b"jThreadExtendedInfo:") == b""


def test_what_lldb_selects_to_read_does_not_run(client: RawClient) -> None:
    """It selects every thread in turn before it resumes all of them."""
    client.ask(b"qHostInfo")
    client.ask(b"vCont;s:%x" % TIDS[1])
    client.ask(b"Hg%x" % TIDS[2])
    assert client.ask(b"qC") == b"QCp%x.%x" % (PID, TIDS[2])
    assert (client.ask(b"vCont;c:p%x.-1" % PID) or b"").endswith(b"thread:%s;" % T2)


def test_our_own_replies_are_escaped_for_it(client: RawClient) -> None:
    plain = client.ask(b"quffd.reset")
    client.ask(b"qHostInfo")
    escaped = client.ask(b"quffd.reset") or b""
    assert plain == b"{}" and escaped == b"{}]" and unescape(escaped) == plain


def test_registers_are_saved_and_restored_once(client: RawClient) -> None:
    client.ask(b"Hg" + T2)
    number = client.ask(b"QSaveRegisterState")
    assert number is not None and number.isdigit()
    before = client.ask(b"p0")
    assert client.ask(b"P0=8877665544332211") == b"OK"
    client.ask(b"Hg%x" % TIDS[0])
    assert client.ask(b"QRestoreRegisterState:" + number) == b"OK"
    assert client.ask(b"qC") == b"QC" + T2 and client.ask(b"p0") == before
    for wrong in (number, b"", b"x", b"-1", b"999"):
        assert (client.ask(b"QRestoreRegisterState:" + wrong) or b"").startswith(b"E"), wrong


def test_errors_have_text_once_asked_for() -> None:
    def fails(action: Resume, client: StubClient) -> Stop:
        return Stop(action.tid, 5, end=End("stack", limit=8 << 20))

    diversion = FakeDiversion(on_resume=fails)
    diversion.snapshot.memory[CODE][0x123:0x125] = b"\x0f\x05"
    with serving(diversion) as client:
        assert client.ask(b"_M1000,rw") == b"E01"
        assert client.ask(b"QEnableErrorStrings") == b"OK"
        told = (client.ask(b"_M1000,rw") or b"").partition(b"E01;")[2]
        assert bytes.fromhex(told.decode()).startswith(
            b"the stack is used up, 8 MiB below the call"
        )


def answering(*results: int) -> FakeDiversion:
    """Steps over a system call give these results, one after the other."""
    left, made = list(results), FakeDiversion()
    made.snapshot.memory[CODE][0x123:0x125] = b"\x0f\x05"

    def step(action: Resume, client: StubClient) -> Stop:
        registers = made.registers(action.tid).copy()
        assert action.kind == "s" and registers.gpr[GPR["rip"]] == SYSCALL
        names = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9")
        made.asked.append(tuple(registers.gpr[GPR[n]] for n in names))
        registers.gpr[GPR["rax"]] = left.pop(0) & (2**64 - 1)
        registers.gpr[GPR["rip"]] += 2
        made.current[action.tid] = registers
        return Stop(action.tid, 5)

    made.on_resume = step
    return made


def test_memory_is_made_by_the_program_itself() -> None:
    diversion = answering(0x7F0000, 0)
    before = diversion.registers(TIDS[0])
    with serving(diversion) as client:
        assert client.ask(b"_M1001,rwx") == b"7f0000"
        calls = [a for a in diversion.asked if a[0] != "resume"]
        assert calls == [(9, 0, 0x2000, 7, 0x22, 2**64 - 1, 0)]
        assert diversion.registers(TIDS[0]) == before
        assert client.ask(b"_m7f0000") == b"OK"
        assert diversion.asked[-1][:3] == (11, 0x7F0000, 0x2000)
        assert (client.ask(b"_m7f0000") or b"").startswith(b"E")


def test_memory_that_cannot_be_had() -> None:
    with serving(answering(-12)) as client:
        client.ask(b"QEnableErrorStrings")
        reply = client.ask(b"_M1000,rw") or b""
        assert "Cannot allocate memory" in text(reply.partition(b";")[2].decode())
        for wrong in (b"_M", b"_M0,rw", b"_M1000", b"_Mffffffffffff,rw", b"_mzz"):
            assert (client.ask(wrong) or b"").startswith(b"E"), wrong
        assert client.ask(b"_q") == client.ask(b"_") == b""
    with serving(FakeDiversion()) as client:  # its code has no `syscall`
        client.ask(b"QEnableErrorStrings")
        assert b"syscall".hex().encode() in (client.ask(b"_M1000,rw") or b"")
