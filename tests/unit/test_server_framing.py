"""Packets: what goes over the wire comes back, and garbage does not hurt."""

from __future__ import annotations

from typing import List, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdb_uffd.server.stub import framing
from gdb_uffd.server.stub.framing import PACKET_SIZE, Decoder, FramingError, FramingEvent, frame


def drain(decoder: Decoder) -> List[Union[bytes, FramingEvent]]:
    out = []
    while (item := decoder.next()) is not None:
        out.append(item)
    return out


@given(st.binary(max_size=2000))
def test_checksum_is_the_sum_modulo_256(data: bytes) -> None:
    assert framing.checksum(data) == sum(data) & 0xFF


def test_checksum_of_the_largest_bytes() -> None:
    assert framing.checksum(b"\xff" * 5000) == sum(b"\xff" * 5000) & 0xFF


@given(st.binary())
def test_escaped_data_comes_back(data: bytes) -> None:
    escaped = framing.escape(data)
    assert not set(escaped) & set(b"#$*")
    assert framing.unescape(escaped) == data


@given(st.lists(st.binary(max_size=60), max_size=6), st.data())
def test_packets_survive_any_cut(payloads: List[bytes], data: st.DataObject) -> None:
    payloads = [framing.escape(p) for p in payloads]
    wire = b"+".join(frame(p) for p in payloads)
    decoder, got, position = Decoder(), [], 0
    while position < len(wire):
        step = data.draw(st.integers(1, len(wire) - position))
        decoder.feed(wire[position : position + step])
        got += drain(decoder)
        position += step
    assert got == payloads


@given(st.lists(st.binary(max_size=80), max_size=10))
def test_garbage_never_raises(pieces: List[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        decoder.feed(piece)
        for item in drain(decoder):
            assert isinstance(item, (bytes, FramingEvent))
    decoder.feed(b"#00" + frame(b"g"))
    assert drain(decoder)[-1] == b"g"


def test_events() -> None:
    decoder = Decoder()
    decoder.feed(b"+\x03-$g#00$?#zz" + frame(b"?"))
    assert drain(decoder) == [
        FramingEvent.INTERRUPT,
        FramingEvent.RESEND,
        FramingEvent.BAD,
        FramingEvent.BAD,
        b"?",
    ]


def test_checksum_is_not_looked_at_without_acknowledgements() -> None:
    decoder = Decoder()
    decoder.verify = False
    decoder.feed(b"$g#00")
    assert drain(decoder) == [b"g"]


def test_a_new_packet_inside_of_a_broken_one() -> None:
    decoder = Decoder()
    decoder.feed(b"$m123" + frame(b"?"))
    assert drain(decoder) == [b"?"]


@pytest.mark.parametrize("extra", [1, 10, PACKET_SIZE])
def test_an_oversized_packet_is_dropped_whole(extra: int) -> None:
    decoder = Decoder()
    wire = frame(b"m" * (PACKET_SIZE + extra))
    for start in range(0, len(wire), 4096):
        decoder.feed(wire[start : start + 4096])
        assert len(decoder._data) <= PACKET_SIZE + 2 * 4096
        items = drain(decoder)
    assert items == [FramingEvent.TOO_LONG]
    decoder.feed(frame(b"?"))
    assert drain(decoder) == [b"?"]


def test_runs() -> None:
    assert framing.expand_runs(b"0* ") == b"0000"  # the manual's example
    assert framing.expand_runs(b"a0*!b") == b"a00000b"
    for bad in (b"*x", b"0*", b"0*\x1d", b"0*\x00"):
        with pytest.raises(FramingError):
            framing.expand_runs(bad)
    with pytest.raises(FramingError):
        framing.expand_runs(b"0" + b"*\xff" * 1000)


def test_escape_at_the_end() -> None:
    assert framing.unescape(b"a}]") == b"a}"
    assert framing.unescape(b"}]}]") == b"}}"
    for bad in (b"a}", b"}]}", b"}}}"):
        with pytest.raises(FramingError):
            framing.unescape(bad)


def test_an_interrupt_waiting_behind_acknowledgements() -> None:
    decoder = Decoder()
    decoder.feed(b"++\x03" + frame(b"?"))
    assert decoder.take_interrupt()
    assert not decoder.take_interrupt()
    assert drain(decoder) == [b"?"]
