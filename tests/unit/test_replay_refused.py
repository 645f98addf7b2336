"""Refused calls as text: whatever a program passed, one readable line comes out."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdb_uffd.client.show.ends import refusal_text, refusal_texts
from gdb_uffd.native import ffi
from gdb_uffd.replay.policy import refused, syscalls

WORD = st.integers(0, (1 << 64) - 1)


def entry(number, arguments, error=1, memory=(), table=0, times=1, others=0):
    """A struct refused."""
    made = ffi.new("struct refused *")
    made.call.nr, made.call.table, made.error = number, table, error
    made.times, made.others = times, others
    for index, value in enumerate(arguments):
        made.call.args[index] = value & ((1 << 64) - 1)
    for index in range(2):
        made.memory[index].argument = 6
    for index, (argument, data, cut) in enumerate(memory):
        captured = made.memory[index]
        captured.argument, captured.len, captured.cut = argument, len(data), cut
        ffi.buffer(captured.bytes)[: len(data)] = data
    return made


def line(name, arguments, error, *memory):
    return refusal_text(
        refused.one(entry(syscalls.by_name()[name].number, arguments, error, memory), {})
    )


def test_the_example_of_the_documentation():
    address = struct.pack("<H", socket.AF_INET) + struct.pack(">H4s8x", 6379, b"\x7f\0\0\1")
    assert line("connect", (3, 0x1000, 16), 1, (1, address, False)) == (
        "connect(3, 127.0.0.1:6379) → EPERM"
    )


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (struct.pack("<H", 1) + b"/run/log\0", "/run/log"),
        (struct.pack("<H", 1) + b"\0abstract", "@abstract"),
        (struct.pack("<H", 1), "unnamed"),
        (struct.pack("<H", 10) + struct.pack(">H", 80) + bytes(4) + bytes(15) + b"\1" + bytes(4),
         "[::1]:80"),
        (struct.pack("<HxxII", 16, 7, 0), "netlink:7"),
        (struct.pack("<H", 17) + bytes(14), "address family 17"),
        (b"\2", "1 bytes"),
        (struct.pack("<H", 2), "address family 2"),
    ],
)  # fmt: skip
def test_addresses(address, text):
    assert refused.address(address) == text


def test_kinds_of_arguments():
    assert line("openat", (-100, 8, 0o1101, 0o644), 30, (1, b'a\nb\xff"', False)) == (
        'openat(AT_FDCWD, "a\\nb\\xff\\"", O_WRONLY|O_CREAT|O_TRUNC, 0o644) → EROFS'
    )
    assert line("kill", (-1, 9), 1) == "kill(-1, SIGKILL) → EPERM"
    assert line("kill", (1 << 32 | 5, 99), 1) == "kill(5, 99) → EPERM"
    assert line("unlink", (0,), 30) == "unlink(NULL) → EROFS"
    assert line("unlink", (8,), 30, (0, b"", False)) == 'unlink("") → EROFS'
    assert line("write", (9, 8, 4), 9, (1, b"text", False)) == 'write(9, "text", 4) → EBADF'
    assert line("mkdir", (8, 0o755), 30, (0, b"x" * 200, True)) == (
        'mkdir("' + "x" * 64 + '...", 0o755) → EROFS'
    )
    assert line("clone", (0x11,), 11) == "fork() → EAGAIN"
    assert line("clone", (0x100,), 11) == "clone() → EAGAIN"
    assert line("alarm", (5,), 0) == "alarm(5) → ignored"


def test_other_tables():
    assert refusal_text(refused.one(entry(37, (), 38, table=1), {})) == (
        "int 0x80, system call 37 of i386 → ENOSYS"
    )
    assert refusal_text(refused.one(entry(0x40000001, (), 38, table=2), {})) == (
        "system call 0x40000001 of x32 → ENOSYS"
    )
    assert refusal_text(refused.one(entry(201, (), 38, table=3), {})) == "vsyscall time() → ENOSYS"
    assert refusal_text(refused.one(entry(9999, (), 38), {})) == "system call 9999() → ENOSYS"


def test_a_descriptor_with_a_history():
    known = {7: "tcp 10.0.0.1:443\n"}
    text = refusal_text(refused.one(entry(0, (7, 8, 9), 9), known))
    assert text == "read(7, 9) → EBADF (7 was tcp 10.0.0.1:443\\n)"


def test_repeats_are_counted():
    entries = [entry(62, (1, 9), 1, times=1000), entry(62, (2, 9), 1, others=5)]
    assert refusal_texts(refused.refusals(entries, {}), 3) == [
        "kill(1, SIGKILL) → EPERM (1,000 times)",
        "kill(2, SIGKILL) → EPERM (and 5 more with other arguments)",
        "and 3 more",
    ]


@given(
    number=st.one_of(st.integers(0, 600), WORD),
    arguments=st.lists(WORD, min_size=6, max_size=6),
    error=st.integers(0, 200),
    table=st.integers(0, 3),
    memory=st.lists(
        st.tuples(st.integers(0, 5), st.binary(max_size=256), st.booleans()), max_size=2
    ),
)
def test_anything_becomes_one_printable_line(number, arguments, error, table, memory):
    text = refusal_text(refused.one(entry(number, arguments, error, memory, table), {}))
    assert "→" in text and text.isprintable() and len(text) < 1000


def test_the_table_is_whole():
    calls = syscalls.table()
    assert set(range(335)) | set(range(424, 470)) == set(calls)
    for call in calls.values():
        for level in syscalls.LEVELS:
            meant = syscalls.outcome(call, level)
            assert meant.action in ("run", "let", "answer", "trace", "refuse", "result")
            assert (meant.action == "refuse") <= (meant.error > 0)
            assert syscalls.words(call, level)
        assert len(call.arguments) <= 6
    let_through = [c.name for c in calls.values() if syscalls.outcome(c, "none").action == "run"]
    assert let_through == ["rt_sigreturn", "restart_syscall"]


def test_what_runs_untouched_is_little():
    """Nothing that names a file, a descriptor, a process or an address to go to."""
    untouched = [c for c in syscalls.table().values() if c.safe == "run"]
    assert len(untouched) <= 12
    for call in untouched:
        assert not {"fd", "path", "pid", "addr"} & set(call.arguments), call
