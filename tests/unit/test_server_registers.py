"""Registers to and from packets; the target description that gives the packet its shape."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_fakes import ALL_FEATURES, make_registers

from gdb_uffd.arch import GPR, X86_64, Registers
from gdb_uffd.arch.x86_64 import description
from gdb_uffd.arch.x86_64.packet import X86RegisterFormat, abridged_tag_word, full_tag_word
from gdb_uffd.arch.x86_64.xstate import XSTATE_COMPONENTS, XSTATE_SIZE
from gdb_uffd.server.stub import signals

XFEATURES = (3, 7, 0xE7, 0x207, ALL_FEATURES)


def names(xfeatures: int) -> List[str]:
    return [r.name for r in description.registers(xfeatures)]


def get(form: X86RegisterFormat, registers: Registers, name: str) -> bytes:
    offset, size = form.slots[names(form.described).index(name)]
    return form.encode(registers)[offset : offset + size]


@pytest.mark.parametrize("xfeatures", XFEATURES)
def test_description_and_packet_agree(xfeatures: int) -> None:
    root = ET.fromstring(X86_64.description(xfeatures))
    registers = root.findall("feature/reg")
    form = X86RegisterFormat(xfeatures)
    assert form.size == sum(int(r.get("bitsize", "0")) for r in registers) // 8
    assert [int(r.get("regnum", "-1")) for r in registers] == list(range(len(registers)))
    assert len(form.encode(make_registers(1, xfeatures))) == form.size


@pytest.mark.parametrize("xfeatures", XFEATURES)
def test_decode_inverts_encode(xfeatures: int) -> None:
    form, registers = X86RegisterFormat(xfeatures), make_registers(3, xfeatures)
    assert form.decode(form.encode(registers), registers) == registers
    other = make_registers(99, xfeatures)
    back = form.decode(form.encode(other), registers)
    assert form.encode(back) == form.encode(other)


def test_avx512_only_whole() -> None:
    assert description.described(0x27) == 7
    assert description.described(0xE3) == 3


def test_where_the_registers_lie() -> None:
    form, r = X86RegisterFormat(ALL_FEATURES), make_registers(5)
    xs = r.xstate
    assert get(form, r, "rax") == r.gpr[GPR["rax"]].to_bytes(8, "little")
    assert get(form, r, "rip") == r.gpr[GPR["rip"]].to_bytes(8, "little")
    assert get(form, r, "gs") == r.gpr[GPR["gs"]].to_bytes(4, "little")
    assert get(form, r, "orig_rax") == r.gpr[GPR["orig_rax"]].to_bytes(8, "little")
    assert get(form, r, "gs_base") == r.gpr[GPR["gs_base"]].to_bytes(8, "little")
    assert get(form, r, "st7") == xs[144:154]
    assert get(form, r, "mxcsr") == xs[24:28]
    assert get(form, r, "xmm15") == xs[400:416]
    assert get(form, r, "ymm1h") == xs[592:608]
    assert get(form, r, "k7") == xs[1144:1152]
    assert get(form, r, "zmm15h") == xs[1632:1664]
    assert get(form, r, "xmm16") == xs[1664:1680]
    assert get(form, r, "ymm16h") == xs[1680:1696]
    assert get(form, r, "zmm31h") == xs[2656:2688]
    assert get(form, r, "pkru") == xs[2688:2692]


def test_initial_state_is_shown_not_what_lies_there() -> None:
    form, r = X86RegisterFormat(ALL_FEATURES), make_registers(5)
    r.xstate = r.xstate[:512] + bytes(8) + r.xstate[520:]
    for name in ("st0", "xmm3", "ymm3h", "k1", "zmm2h", "xmm20", "zmm20h", "pkru"):
        assert not any(get(form, r, name)), name
    assert get(form, r, "fctrl") == b"\x7f\x03\0\0"
    assert get(form, r, "ftag") == b"\xff\xff\0\0"
    empty = Registers(r.gpr, bytes(XSTATE_SIZE), ALL_FEATURES, X86_64)
    assert get(form, empty, "mxcsr") == b"\x80\x1f\0\0"


def test_writing_sets_the_component_in_use_and_its_neighbours_to_their_initial_state() -> None:
    form, r = X86RegisterFormat(ALL_FEATURES), make_registers(5)
    r.xstate = r.xstate[:512] + bytes(8) + r.xstate[520:]
    number = names(ALL_FEATURES).index("ymm4h")
    out = form.write(number, b"\x11" * 16, r)
    assert int.from_bytes(out.xstate[512:520], "little") == 1 << 2
    at, size = XSTATE_COMPONENTS[2]
    component = out.xstate[at : at + size]
    assert component[64:80] == b"\x11" * 16
    assert not any(component[:64] + component[80:])
    assert out.gpr == r.gpr


@given(st.integers(0, len(names(ALL_FEATURES)) - 1), st.binary(min_size=64, max_size=64))
def test_a_single_write_changes_that_register_alone(number: int, noise: bytes) -> None:
    form, r = X86RegisterFormat(ALL_FEATURES), make_registers(7)
    offset, size = form.slots[number]
    name = names(ALL_FEATURES)[number]
    before = form.encode(r)
    after = form.encode(form.write(number, noise[:size], r))
    if name in ("fctrl", "fstat", "ftag", "fiseg", "foseg", "fop") or name.startswith("st"):
        return  # narrower than they are shown, and the tag word follows from the others
    assert after[offset : offset + size] == noise[:size]
    assert after[:offset] == before[:offset] and after[offset + size :] == before[offset + size :]


@pytest.mark.parametrize("number", [-1, 148 + 1, 10**6])
def test_no_such_register(number: int) -> None:
    with pytest.raises(ValueError):
        X86RegisterFormat(ALL_FEATURES).write(number, b"1234", make_registers())


def test_sizes_are_checked() -> None:
    form = X86RegisterFormat(7)
    with pytest.raises(ValueError):
        form.write(0, b"1234", make_registers())
    with pytest.raises(ValueError):
        form.decode(bytes(form.size + 1), make_registers(0, 7))
    assert form.decode(b"", make_registers(4, 7)) == make_registers(4, 7)


def test_what_was_not_recorded_is_x() -> None:
    form = X86RegisterFormat(ALL_FEATURES)
    r = make_registers(2, 3)
    text = form.encode_hex(r)
    assert text[2 * 560 :] == b"x" * (2 * (form.size - 560))
    assert b"x" not in text[: 2 * 560]


def test_a_short_xstate_is_no_harm() -> None:
    form = X86RegisterFormat(ALL_FEATURES)
    assert len(form.encode(Registers([0] * 27, b"", 0, X86_64))) == form.size
    assert len(form.encode(Registers([0] * 27, bytes(9999), 0, X86_64))) == form.size


def test_tag_word() -> None:
    image = bytearray(512)
    assert full_tag_word(0, 0, bytes(image)) == 0xFFFF
    image[32:42] = (1 << 63).to_bytes(8, "little") + (0x3FFF).to_bytes(2, "little")  # st0 = 1.0
    image[64:74] = bytes(8) + (0x7FFF).to_bytes(2, "little")  # st2 = infinity or NaN
    # TOP is 6: st0 is physical 6, st1 physical 7, st2 physical 0.
    word = full_tag_word(0b11000001, 6 << 11, bytes(image))
    assert word >> 12 & 3 == 0 and word >> 14 & 3 == 1 and word & 3 == 2
    assert abridged_tag_word(word) == 0b11000001


@given(st.integers(0, 255), st.integers(0, 7))
def test_tag_words_convert_both_ways(abridged: int, top: int) -> None:
    image = make_registers(1).xstate
    assert abridged_tag_word(full_tag_word(abridged, top << 11, image)) == abridged


def test_signals() -> None:
    assert [signals.to_gdb(n) for n in (0, 2, 5, 7, 10, 11, 19, 31)] == [
        0,
        2,
        5,
        10,
        30,
        11,
        17,
        12,
    ]
    assert [signals.to_gdb(n) for n in (32, 33, 34, 63, 64)] == [77, 45, 46, 75, 78]
    assert signals.to_gdb(16) == signals.to_gdb(1000) == 143
    for n in set(range(1, 65)) - {16}:
        assert signals.to_linux(signals.to_gdb(n)) == n
    assert signals.to_linux(143) == signals.to_linux(0) == 0


@pytest.mark.parametrize("xfeatures", XFEATURES)
def test_a_single_write_is_the_same_as_one_of_all(xfeatures: int) -> None:
    form, r = X86RegisterFormat(xfeatures), make_registers(7, xfeatures)
    for number, (offset, size) in enumerate(form.slots):
        value = bytes((i * 31 + number) & 0xFF for i in range(size))
        data = bytearray(form.encode(r))
        data[offset : offset + size] = value
        assert form.write(number, value, r) == form.decode(bytes(data), r), number


@pytest.mark.parametrize("name", ["st2", "xmm1", "ymm4h", "k1", "zmm2h", "xmm20", "pkru"])
def test_a_component_in_its_initial_state_is_left_by_writing_all(name: str) -> None:
    """By `G`: gdb writes one register by all of them where the stub has no `P`."""
    form, r = X86RegisterFormat(ALL_FEATURES), make_registers(5)
    r.xstate = r.xstate[:512] + bytes(8) + r.xstate[520:]
    offset, size = form.slots[names(ALL_FEATURES).index(name)]
    data = bytearray(form.encode(r))
    data[offset : offset + size] = b"\x11" * size
    out = form.decode(bytes(data), r)
    assert get(form, out, name) == b"\x11" * size
    component = {"st2": 0, "xmm1": 1, "ymm4h": 2, "k1": 5, "zmm2h": 6, "xmm20": 7, "pkru": 9}[name]
    assert int.from_bytes(out.xstate[512:520], "little") == 1 << component
