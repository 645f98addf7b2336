"""Extended registers: both CPU formats, initial states, there and back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdb_uffd.arch import X86_64, Registers
from gdb_uffd.arch.x86_64 import vectors, xstate
from gdb_uffd.arch.x86_64.xstate import XSTATE_COMPONENTS, XSTATE_SIZE
from gdb_uffd.protocol.model import ThreadState
from gdb_uffd.trace.core.core_notes import make_notes
from gdb_uffd.trace.core.elf import iter_notes

INTEL = dict(XSTATE_COMPONENTS)
AMD = {2: (576, 256), 5: (832, 64), 6: (896, 512), 7: (1408, 1024), 9: (2432, 8)}
MPX_GAP = range(960, 1088)


def machine_image(form: xstate.XsaveFormat, xcr0: int, bv: int, size: int) -> bytes:
    """An XSAVE image whose bytes tell their component: component n is full of n."""
    image = bytearray(b"\xee" * size)
    image[0:416] = bytes(i % 251 for i in range(416))
    struct.pack_into("<II", image, 24, 0x1FA0, 0xFFFF)
    struct.pack_into("<Q", image, 464, xcr0)
    image[512:576] = struct.pack("<Q", bv) + bytes(56)
    for bit, (offset, length) in form.items():
        if xcr0 >> bit & 1:
            image[offset : offset + length] = bytes([bit]) * length
    return bytes(image)


CPUS = [
    pytest.param(INTEL, 0x2E7, 2696, id="intel-avx512-pkru"),
    pytest.param(INTEL, 0x602E7, 11008, id="intel-amx"),
    pytest.param(INTEL, 0xE7, 2688, id="intel-avx512"),
    pytest.param(INTEL, 0x207, 2696, id="intel-avx-pkru"),
    pytest.param(INTEL, 0x1F, 1088, id="intel-mpx"),
    pytest.param(INTEL, 0x7, 832, id="avx"),
    pytest.param(INTEL, 0x3, 576, id="sse"),
    pytest.param(AMD, 0x2E7, 2440, id="amd-avx512-pkru"),
    pytest.param(AMD, 0xE7, 2432, id="amd-avx512"),
    pytest.param(AMD, 0x207, 2440, id="amd-zen3"),
]


@pytest.mark.parametrize("form, xcr0, size", CPUS)
@pytest.mark.parametrize("known", [True, False], ids=["note", "guessed"])
def test_any_cpu_becomes_canonical(
    form: xstate.XsaveFormat, xcr0: int, size: int, known: bool
) -> None:
    image = machine_image(form, xcr0, xcr0 & 0x2E7, size)
    given = {b: p for b, p in form.items() if xcr0 >> b & 1} if known else None
    canonical, features = xstate.from_note(image, given)
    assert features == xcr0 & 0x2E7
    assert len(canonical) == XSTATE_SIZE
    assert canonical[:416] == image[:416]
    assert int.from_bytes(canonical[512:520], "little") == features
    for bit, (offset, length) in XSTATE_COMPONENTS.items():
        expected = bytes([bit]) if xcr0 >> bit & 1 else b"\0"
        assert canonical[offset : offset + length] == expected * length


def test_clear_bits_mean_initial_state() -> None:
    image = machine_image(AMD, 0x2E7, 0, 2440)
    canonical, features = xstate.from_note(image, None)
    assert features == 0x2E7
    assert canonical[0:2] == b"\x7f\x03"
    assert canonical[24:28] == (0x1F80).to_bytes(4, "little")
    rest = canonical[2:24] + canonical[32:]
    assert rest == bytes(len(rest))


def test_mxcsr_goes_with_avx_too() -> None:
    image = machine_image(INTEL, 0x7, 4, 832)
    canonical, _ = xstate.from_note(image, None)
    assert canonical[24:28] == (0x1FA0).to_bytes(4, "little")
    assert canonical[160:416] == bytes(256)


def test_fpregs_alone() -> None:
    image = machine_image({}, 3, 3, 576)[:512]
    canonical, features = xstate.from_fpregs(image)
    assert features == 3
    assert canonical[:416] == image[:416]
    assert canonical[576:] == bytes(XSTATE_SIZE - 576)


def test_too_short_is_refused() -> None:
    with pytest.raises(ValueError):
        xstate.from_note(bytes(575), None)
    with pytest.raises(ValueError):
        xstate.from_fpregs(bytes(511))
    with pytest.raises(ValueError):
        xstate.from_machine(b"", {}, 3)
    with pytest.raises(ValueError):
        xstate.to_machine(Registers([0] * 27, xstate.INITIAL, 0, X86_64), {}, b"")


def test_format_note() -> None:
    entries = [(2, 256, 576, 0), (5, 64, 832, 0), (9, 8, 2432, 0), (17, 64, 2752, 0), (6, 1, 2, 0)]
    raw = b"".join(struct.pack("<IIII", *e) for e in entries) + b"tail"
    assert xstate.parse_format(raw) == {2: (576, 256), 5: (832, 64), 9: (2432, 8)}


@pytest.mark.parametrize("source, s_size", [(INTEL, 2696), (AMD, 2440)], ids=["intel", "amd"])
@pytest.mark.parametrize("target, t_size", [(INTEL, 2696), (AMD, 2440)], ids=["intel", "amd"])
@given(bv=st.integers(0, 0x3FF), data=st.binary(min_size=64, max_size=64))
def test_round_trip_across_cpus(
    source: xstate.XsaveFormat,
    s_size: int,
    target: xstate.XsaveFormat,
    t_size: int,
    bv: int,
    data: bytes,
) -> None:
    image = bytearray(machine_image(source, 0x2E7, bv & 0x2E7, s_size))
    image[160:224] = data
    canonical, features = xstate.from_note(bytes(image), None)
    own = machine_image(target, 0x2E7, 0, t_size)
    there = xstate.to_machine(Registers([0] * 27, canonical, features, X86_64), target, own)
    assert len(there) == t_size
    assert there[416:512] == own[416:512]  # the machine's own software bytes
    back = xstate.from_machine(there, target, 0x2E7)
    sse = 2 if canonical[24:28] != b"\x80\x1f\0\0" else 0
    assert back[:512] == canonical[:512]
    assert back[520:] == canonical[520:]
    assert back[512] | sse == canonical[512] | sse


def test_components_the_machine_lacks_are_dropped() -> None:
    canonical, features = xstate.from_note(machine_image(INTEL, 0x2E7, 0x2E7, 2696), None)
    own = machine_image({2: (576, 256)}, 7, 0, 832)
    out = xstate.to_machine(Registers([0] * 27, canonical, features, X86_64), {2: (576, 256)}, own)
    assert len(out) == 832
    assert out[576:832] == b"\x02" * 256
    assert int.from_bytes(out[512:520], "little") == 7


def test_components_the_recording_lacks_stay_the_machines() -> None:
    canonical, features = xstate.from_fpregs(machine_image({}, 3, 3, 576)[:512])
    own = machine_image(INTEL, 0x2E7, 0x200, 2696)
    out = xstate.to_machine(Registers([0] * 27, canonical, features, X86_64), INTEL, own)
    assert out[576:] == own[576:]
    assert int.from_bytes(out[512:520], "little") == 0x203


def test_reserved_mxcsr_bits_are_cut() -> None:
    image = bytearray(machine_image({}, 3, 3, 576)[:512])
    image[24:28] = b"\xff\xff\xff\xff"
    canonical, features = xstate.from_fpregs(bytes(image))
    own = machine_image(INTEL, 0x2E7, 0, 2696)
    out = xstate.to_machine(Registers([0] * 27, canonical, features, X86_64), INTEL, own)
    assert out[24:28] == b"\xff\xff\0\0"


@given(st.binary(max_size=4000), st.binary(max_size=80))
def test_garbage_never_raises_anything_else(note: bytes, form: bytes) -> None:
    try:
        canonical, features = xstate.from_note(note, xstate.parse_format(form))
    except ValueError:
        return
    assert len(canonical) == XSTATE_SIZE
    assert not features & ~0x2E7


def test_what_a_machine_lacks_stays_as_recorded() -> None:
    recorded, features = xstate.from_note(machine_image(INTEL, 0x2E7, 0x2E7, 2696), None)
    own = {2: (576, 256)}
    changed = bytearray(machine_image(own, 7, 7, 832))
    changed[576:832] = b"\x77" * 256
    here = xstate.from_machine(bytes(changed), own, 7)
    both = xstate.with_components(here, recorded, features & ~7)
    assert both[576:832] == b"\x77" * 256 and both[:512] == here[:512]
    assert both[1088:] == recorded[1088:]
    assert int.from_bytes(both[512:520], "little") == 0x2E7
    assert xstate.with_components(here, recorded, 3) == here


@pytest.mark.parametrize("features", [0x3, 0x7, 0xE7, 0x207, 0x2E7])
def test_the_format_that_we_write_names_the_components_there_are(features: int) -> None:
    thread = ThreadState(7, Registers([0] * 27, bytes(XSTATE_SIZE), features, X86_64))
    raw = make_notes(7, [thread], bytes(16), [])
    found = [raw[at : at + size] for _, kind, at, size in iter_notes(raw, 0, len(raw))
             if kind == vectors.NT_X86_XSAVE_LAYOUT]  # fmt: skip
    wanted = {bit: at for bit, at in XSTATE_COMPONENTS.items() if features >> bit & 1}
    assert [xstate.parse_format(one) for one in found] == [wanted] * bool(wanted)
