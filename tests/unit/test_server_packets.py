"""Every family of packets, over a real socket, against a diversion that runs nothing."""

from __future__ import annotations

from typing import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_fakes import DATA, PID, STACK, TIDS, FakeDiversion, RawClient, make_registers, serving

from gdb_uffd.arch.x86_64.packet import X86RegisterFormat
from gdb_uffd.protocol.model import GPR
from gdb_uffd.server.stub.framing import escape, frame, unescape

OFFERED = b"qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+"
T1, T2, T3 = (b"p%x.%x" % (PID, t) for t in TIDS)


@pytest.fixture
def client() -> Iterator[RawClient]:
    with serving() as connected:
        yield connected


def test_supported_features(client: RawClient) -> None:
    reply = client.ask(OFFERED)
    assert reply is not None
    features = reply.split(b";")
    assert b"PacketSize=20000" in features
    for name in (b"QStartNoAckMode", b"multiprocess", b"swbreak", b"qXfer:siginfo:write"):
        assert name + b"+" in features


def test_unknown_packets_get_an_empty_reply(client: RawClient) -> None:
    for packet in (
        b"vMustReplyEmpty",
        b"!",
        b"R00",
        b"vRun;",
        b"qOffsets",
        b"QNonStop:1",
        b"jx",
        b"vFile:frob:1",
        b"quffd.frob",
        b"Z9,0,1",
        b"qXfer:btrace:read::0,10",
    ):
        assert client.ask(packet) == b"", packet


def test_threads(client: RawClient) -> None:
    assert client.ask(b"qC") == b"QC" + T1
    assert client.ask(b"qfThreadInfo") == b"m" + b",".join((T1, T2, T3))
    assert client.ask(b"qsThreadInfo") == b"l"
    assert client.ask(b"T" + T2) == b"OK"
    assert client.ask(b"T%x" % TIDS[1]) == b"OK"
    assert client.ask(b"Tp%x.77" % PID) == b"E03"
    assert client.ask(b"Tp99.1234") == b"E03"
    assert client.ask(b"Hg" + T2) == b"OK"
    assert client.ask(b"qC") == b"QC" + T2
    for text in (b"0", b"-1", b"p0.0", b"p%x.-1" % PID, b"p%x.0" % PID, b"p-1.-1"):
        assert client.ask(b"Hg" + text) == b"OK"
        assert client.ask(b"Hc" + text) == b"OK"
    assert client.ask(b"qC") == b"QC" + T2
    for text in (b"", b"x", b"p", b"p.1", b"pzz.1", b"--1", b"0x1"):
        assert (client.ask(b"Hg" + text) or b"").startswith(b"E"), text
    assert bytes.fromhex((client.ask(b"qThreadExtraInfo," + T3) or b"").decode()) == b"t2"
    xml = client.ask(b"qXfer:threads:read::0,1000")
    assert xml is not None and xml[:1] == b"l" and b'id="%s" name="t1"' % T2 in xml


def test_stop_reason(client: RawClient) -> None:
    r = make_registers(0)
    rip = r.gpr[GPR["rip"]].to_bytes(8, "little").hex().encode()
    reply = client.ask(b"?")
    assert reply is not None and reply.startswith(b"T0b")
    assert b"10:" + rip + b";" in reply and reply.endswith(b"thread:" + T1 + b";")


def test_registers(client: RawClient) -> None:
    form, r = X86RegisterFormat(0x2E7), make_registers(0)
    g = client.ask(b"g")
    assert g == form.encode(r).hex().encode()
    assert client.ask(b"p10") == g[2 * 128 : 2 * 136]
    assert client.ask(b"p999") == client.ask(b"pzz") == client.ask(b"p") == b"E16"
    assert client.ask(b"P0=" + b"11" * 8) == b"OK"
    assert client.ask(b"g") == b"11" * 8 + g[16:]
    assert client.diversion.current[TIDS[0]].gpr[GPR["rax"]] == 0x1111111111111111
    for bad in (
        b"P0=11",
        b"P0",
        b"P0=zz",
        b"P999=00",
        b"G" + b"0" * (2 * form.size + 2),
        b"G" + g[:-2],
        b"G" + g[: 2 * 560],
        b"G",
        b"G0",
        b"Gzz",
        b"G" + b"x" * (2 * form.size + 1),
    ):
        assert client.ask(bad) in (b"E01", b"E16"), bad
    assert client.ask(b"G" + g) == b"OK"
    assert client.ask(b"g") == g
    assert client.ask(b"Gxxxxxxxxxxxxxxxx" + b"22" * 8 + g[32:]) == b"OK"
    assert client.ask(b"g") == g[:16] + b"22" * 8 + g[32:]
    client.ask(b"Hg" + T2)
    assert client.ask(b"g") == form.encode(make_registers(1)).hex().encode()


def test_a_client_that_reads_no_description_gets_the_first_registers() -> None:
    """gdb's own description of x86-64 (tdesc_amd64_linux): 60 registers, 560 bytes."""
    with serving(plain=True) as client:
        wide = X86RegisterFormat(0x2E7).encode(make_registers(0)).hex().encode()
        g = client.ask(b"g")
        assert g == wide[: 2 * 560]
        assert client.ask(b"p3c") == b"E16" and client.ask(b"p3b") == g[-16:]
        assert client.ask(b"G" + wide) == b"E16"
        assert client.ask(b"G" + b"11" * 8 + g[16:]) == b"OK"
        kept = client.diversion.current[TIDS[0]]
        assert kept.gpr[GPR["rax"]] == 0x1111111111111111
        assert kept.xstate == make_registers(0).xstate  # with what the client does not know
        assert (client.ask(b"qXfer:features:read:target.xml:0,10") or b"").startswith(b"m")
        assert client.ask(b"g") == b"11" * 8 + wide[16:]


def test_threads_have_ids_of_processes_only_for_who_knows_them() -> None:
    with serving(plain=True) as client:
        ids = b",".join(b"%x" % tid for tid in TIDS)
        assert client.ask(b"qfThreadInfo") == b"m" + ids
        assert client.ask(b"qC") == b"QC%x" % TIDS[0]
        assert b'id="%x"' % TIDS[1] in (client.ask(b"qXfer:threads:read::0,1000") or b"")
        assert client.ask(b"Hg%x" % TIDS[1]) == b"OK"
        assert (client.ask(b"vCont;s:%x" % TIDS[1]) or b"").endswith(b"thread:%x;" % TIDS[1])
        assert b"multiprocess+" in (client.ask(b"qSupported:swbreak+") or b"")
        assert client.ask(b"qC") == b"QC%x" % TIDS[1]
        client.ask(b"qSupported:multiprocess+")
        assert client.ask(b"qC") == b"QCp%x.%x" % (PID, TIDS[1])


def test_memory(client: RawClient) -> None:
    assert client.ask(b"m%x,4" % DATA) == b"00010203"
    assert client.ask(b"m%x,10" % (DATA + 4092)) == b"fcfdfeff"  # the readable beginning
    assert client.ask(b"m%x,4" % (DATA + 4096)) == b"E0e"
    assert client.ask(b"m%x,0" % DATA) == b""
    assert client.ask(b"mffffffffffffffff,10") == b"E0e"
    assert client.ask(b"M%x,2:aabb" % DATA) == b"OK"
    assert client.diversion.alive
    assert client.ask(b"m%x,4" % DATA) == b"aabb0203"
    noisy = b"}#$*\x00\xff"
    assert client.ask(b"X%x,%x:%s" % (DATA + 8, len(noisy), escape(noisy))) == b"OK"
    assert client.ask(b"m%x,6" % (DATA + 8)) == noisy.hex().encode()
    assert client.ask(b"x%x,6" % (DATA + 8)) == b"b" + escape(noisy)
    for bad in (
        b"m",
        b"m,",
        b"m1",
        b"m-1,4",
        b"m1_0,4",
        b"m%x,-4" % DATA,
        b"mzz,1",
        b"m1,1,1",
        b"m" + b"f" * 17 + b",1",
        b"M%x,2:aa" % DATA,
        b"M%x,2" % DATA,
        b"M%x,1:a" % DATA,
        b"M%x,1:zz" % DATA,
        b"X%x,4:abc}" % DATA,
        b"X%x,5:a" % DATA,
        b"x1",
        b"Xffffffffffffffff,4:abcd",
        b"X1000,1:a",
    ):
        assert (client.ask(bad) or b"").startswith(b"E"), bad


def test_a_large_read_fits_the_packet(client: RawClient) -> None:
    reply = client.ask(b"m%x,ffffffff" % DATA)
    assert reply is not None and len(reply) == 2 * 4096


def test_an_empty_write_makes_no_process(client: RawClient) -> None:
    assert client.ask(b"X%x,0:" % DATA) == b"OK"
    assert not client.diversion.alive


def test_breakpoints(client: RawClient) -> None:
    for n in (0, 1, 2, 4):
        assert client.ask(b"Z%x,400010,1" % n) == b"OK"
    assert client.ask(b"Z0,400020,1;X3,010203;cmds:0,X1,00") == b"OK"
    assert client.diversion.breakpoints[-1] == (0, 0x400020, 1)
    assert client.ask(b"Z3,400010,1") == b"E01"
    assert client.ask(b"z0,400010,1") == client.ask(b"z0,400010,1") == b"OK"
    assert (0, 0x400010, 1) not in client.diversion.breakpoints
    for bad in (b"Z", b"Z0", b"Z0,1", b"Z0,x,1", b"Z0,1,1,1", b"Z2,400000,ffffffffffffffff"):
        assert (client.ask(bad) or b"").startswith(b"E"), bad


def test_error_texts_where_the_client_takes_them(client: RawClient) -> None:
    client.ask(OFFERED + b";error-message+")
    assert client.ask(b"Z3,400010,1") == b"E.x86 cannot watch reads alone; use awatch"


def test_transfers(client: RawClient) -> None:
    xml, offset = b"", 0
    while True:
        part = client.ask(b"qXfer:features:read:target.xml:%x,100" % offset)
        assert part is not None
        xml += unescape(part[1:])
        offset = len(xml)
        if part[:1] == b"l":
            break
    assert xml.startswith(b"<?xml") and xml.endswith(b"</target>\n")
    assert client.ask(b"qXfer:features:read:other.xml:0,100") == b"E02"
    assert client.ask(b"qXfer:auxv:read::0,1000") == b"l" + escape(bytes(range(32)))
    assert client.ask(b"qXfer:auxv:read::20,1000") == b"l"
    assert client.ask(b"qXfer:exec-file:read:%x:0,1000" % PID) == b"l/usr/bin/fake"
    assert client.ask(b"qXfer:exec-file:read:99:0,1000") == b"E02"
    assert client.ask(b"qXfer:siginfo:read::0,1000") == b"l" + bytes(128)
    assert client.ask(b"qXfer:siginfo:write::4:" + escape(b"}#ab")) == b"4"
    assert client.diversion.siginfos[TIDS[0]] == bytes(4) + b"}#ab" + bytes(120)
    for bad in (
        b"qXfer:auxv:read::99999,1",
        b"qXfer:auxv:read::0",
        b"qXfer:auxv:read",
        b"qXfer",
        b"qXfer:siginfo:write::7f:ab",
        b"qXfer:siginfo:write::zz:ab",
        b"qXfer:siginfo:write::0",
        b"qXfer:auxv:read::-1,5",
    ):
        assert (client.ask(bad) or b"").startswith(b"E"), bad


def test_thread_locals(client: RawClient) -> None:
    fs_base = make_registers(1).gpr[GPR["fs_base"]]
    assert client.ask(b"qGetTLSAddr:" + T2 + b",10,7f00") == b"%x" % (fs_base + 16)
    reply = client.ask(b"qGetTLSAddr:" + T2 + b",10,0")
    assert reply == rb"E.thread 4661: no block for \u00230"
    for bad in (b"qGetTLSAddr", b"qGetTLSAddr:" + T2, b"qGetTLSAddr:" + T2 + b",x,y"):
        assert (client.ask(bad) or b"").startswith(b"E"), bad


def test_small_queries(client: RawClient) -> None:
    assert client.ask(b"qAttached:1234") == b"1"
    assert client.ask(b"qSymbol::") == b"OK"


def test_acknowledgements() -> None:
    import socket
    import threading

    from server_fakes import serve_on

    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    thread = threading.Thread(target=serve_on, args=(theirs, FakeDiversion()))
    thread.start()

    def expect(text: bytes) -> None:
        got = b""
        while len(got) < len(text):
            got += ours.recv(len(text) - len(got))
        assert got == text

    with ours:
        ours.sendall(b"$qAttached#00")
        expect(b"-")
        ours.sendall(frame(b"qAttached"))
        expect(b"+" + frame(b"1"))
        ours.sendall(b"-")
        expect(frame(b"1"))
        ours.sendall(b"+" + frame(b"QStartNoAckMode"))
        expect(b"+" + frame(b"OK"))
        ours.sendall(b"+" + frame(b"qAttached"))
        expect(frame(b"1"))
    thread.join(20)
    assert not thread.is_alive()


_PACKETS = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda head, tail: head + tail,
        st.sampled_from(
            [
                b"vCont;",
                b"qXfer:",
                b"vFile:open:",
                b"vFile:pread:",
                b"m",
                b"X",
                b"G",
                b"P",
                b"Z",
                b"H",
                b"quffd.end:",
                b"quffd.image:",
                b"qGetTLSAddr:",
                b"vFile:stat:",
                b"qXfer:siginfo:write::",
                b"qThreadExtraInfo,",
                b"quffd.",
            ]
        ),
        st.binary(max_size=40),
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_PACKETS, max_size=20))
def test_any_packet_gets_one_reply(packets: list) -> None:  # type: ignore[type-arg]
    with serving() as client:
        for packet in packets:
            packet = escape(packet)
            if packet[:1] in (b"k", b"D") or packet.startswith((b"vKill", b"QStartNoAckMode")):
                continue
            assert client.ask(packet) is not None
        assert client.ask(b"m%x,1" % STACK) is not None


def test_oversized_packets_are_answered(client: RawClient) -> None:
    assert client.ask(b"m" * 0x30000) == b""
    assert client.ask(b"qAttached") == b"1"


def test_no_reply_for_a_client_that_has_given_up(client: RawClient) -> None:
    """gdb says "-" three times and goes on; that reply would be taken for the next packet's."""
    client.sock.sendall(frame(b"m%x,1" % DATA) + b"---" + frame(b"m%x,1" % (DATA + 5)))
    assert client.receive() == b"05"
    client.sock.sendall(frame(b"m%x,1" % DATA) + b"--")  # it still waits
    assert client.receive() == b"00"
    assert client.ask(b"m%x,1" % (DATA + 7)) == b"07"


def test_a_reply_that_crossed_the_clients_last_word(client: RawClient) -> None:
    """It lies there for the next packet, which must not be answered: the connection ends."""
    assert client.ask(b"m%x,1" % DATA) == b"00"
    client.sock.sendall(b"---" + frame(b"m%x,1" % (DATA + 5)))
    assert client.receive() is None


def test_the_echo(client: RawClient) -> None:
    assert b'"echo":77' in (client.ask(b'quffd.hello:{"echo":77}') or b"")
