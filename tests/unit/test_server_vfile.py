"""Files through the stub: the record's /proc, other regular files read only, nothing else."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Iterator

import pytest
from server_fakes import PID, TIDS, RawClient, serving

from gdb_uffd.server.stub.framing import unescape
from gdb_uffd.server.stub.vfile import MAX_OPEN, PACKET_SIZE


@pytest.fixture
def client() -> Iterator[RawClient]:
    with serving() as connected:
        yield connected


def ask(client: RawClient, operation: str, *parameters: object) -> bytes:
    text = ",".join(p.hex() if isinstance(p, bytes) else str(p) for p in parameters)
    reply = client.ask(f"vFile:{operation}:{text}".encode())
    assert reply is not None
    return reply


def open_file(client: RawClient, name: str, flags: int = 0) -> bytes:
    return ask(client, "open", os.fsencode(name), f"{flags:x}", "1c0")


def read(client: RawClient, name: str) -> bytes:
    reply = open_file(client, name)
    assert reply.startswith(b"F") and reply != b"F-1", reply
    fd = reply[1:].decode()
    out = b""
    while True:
        head, _, data = ask(client, "pread", fd, "100", f"{len(out):x}").partition(b";")
        data = unescape(data)
        assert int(head[1:], 16) == len(data)
        if not data:
            break
        out += data
    assert ask(client, "close", fd) == b"F0"
    return out


def test_a_regular_file(client: RawClient, tmp_path: Path) -> None:
    content = bytes(range(256)) * 3
    path = tmp_path / "a b}#"
    path.write_bytes(content)
    assert ask(client, "setfs", 0) == b"F0"
    assert read(client, str(path)) == content
    fd = open_file(client, str(path))[1:].decode()
    for reply in (ask(client, "fstat", fd), ask(client, "stat", os.fsencode(path))):
        head, _, data = reply.partition(b";")
        assert head == b"F40"
        fields = struct.unpack(">7I3Q3I", unescape(data))
        assert fields[2] == path.stat().st_mode and fields[7] == len(content)
    assert ask(client, "pread", fd, "10", "1000") == b"F0;"


def test_nothing_is_written(client: RawClient, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    for flags in (1, 2, 9, 0x201, 0x401):
        assert open_file(client, str(path), flags) == b"F-1,1e"
    assert ask(client, "pwrite", 0, 0, "00") == b"F-1,1e"
    assert ask(client, "unlink", os.fsencode(path)) == b"F-1,1e"
    assert path.read_bytes() == b"abc"


def test_only_regular_files(client: RawClient, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for name in (str(fifo), str(tmp_path), "/dev/zero"):
        assert open_file(client, name) == b"F-1,d"
    assert open_file(client, str(tmp_path / "none")) == b"F-1,2"
    assert open_file(client, "/" + "x" * 5000) == b"F-1,5b"


def test_the_recorded_process(client: RawClient) -> None:
    maps = read(client, f"/proc/{PID}/maps").decode().splitlines()
    assert maps[0].split() == [
        "00400000-00401000",
        "r-xp",
        "00002000",
        "00:00",
        "1",  # 0 would mean no file
        "/usr/bin/fake",
    ]
    assert len(maps) == 4 and maps[3].endswith(" [stack]")
    assert read(client, f"/proc/{PID}/task/{TIDS[1]}/maps").decode().splitlines() == maps
    assert b"Threads:\t3\n" in read(client, f"/proc/{PID}/status")
    assert read(client, f"/proc/{PID}/cmdline") == b"/usr/bin/fake\0"
    assert read(client, f"/proc/{PID}/auxv") == bytes(range(32))
    assert ask(client, "readlink", f"/proc/{PID}/exe".encode()) == b"Fd;/usr/bin/fake"


def test_no_live_process(client: RawClient, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(f"/proc/{os.getpid()}/maps")
    around = f"/tmp/../proc/{os.getpid()}/maps"
    for name in (
        f"/proc/{os.getpid()}/maps",
        "/proc/self/maps",
        "/proc/1/status",
        "//proc/self/maps",
        around,
        str(link),
        f"/proc/{PID}/mem",
        f"/proc/{PID}/cwd",
        "/proc/version",
        f"/proc/{PID}/task/1/maps",
        f"/proc/{PID}/task/x/maps",
    ):
        assert open_file(client, name) == b"F-1,2", name
        assert ask(client, "stat", name.encode()) == b"F-1,2", name
    for name in ("/proc/self/exe", "/proc/self", f"/proc/{PID}/cwd"):
        assert ask(client, "readlink", name.encode()) == b"F-1,2"


def test_bad_parameters(client: RawClient) -> None:
    for packet in (
        b"open:",
        b"open:zz,0,0",
        b"open:2f,0",
        b"open:2f00,0,0",
        b"open:,0,0",
        b"pread:0,1,1",
        b"pread:99,1,1",
        b"pread:x,1,1",
        b"pread:1",
        b"fstat:5",
        b"close:5",
        b"close:",
        b"stat:",
        b"readlink:2f",
        b"pread:0,1,ffffffffffffffff",
    ):
        assert (client.ask(b"vFile:" + packet) or b"").startswith(b"F-1,"), packet


def test_open_files_are_bounded(client: RawClient) -> None:
    name = f"/proc/{PID}/maps"
    for _ in range(MAX_OPEN):
        assert not open_file(client, name).startswith(b"F-1")
    assert open_file(client, name) == b"F-1,18"
    assert ask(client, "close", "7") == b"F0"
    assert open_file(client, name) == b"F7"


def test_a_read_of_more_than_a_packet_holds_is_cut(client: RawClient, tmp_path: Path) -> None:
    """Each byte may need an escape: never more than half of a packet."""
    path = tmp_path / "escaped"
    path.write_bytes(b"}" * 4 * PACKET_SIZE)
    for name in (str(path), "/proc/self/maps"):
        fd = open_file(client, name)[1:].decode()
        reply = ask(client, "pread", fd, f"{8 * PACKET_SIZE:x}", "0")
        assert len(reply) < PACKET_SIZE, name
    head, _, data = ask(client, "pread", open_file(client, str(path))[1:].decode(),
                        f"{8 * PACKET_SIZE:x}", "0").partition(b";")  # fmt: skip
    assert 0x100 < int(head[1:], 16) == len(unescape(data)) < PACKET_SIZE // 2


def test_offsets_that_no_file_has(client: RawClient, tmp_path: Path) -> None:
    """Of an open file: the kernel's own, and one that was made of the recording."""
    path = tmp_path / "data"
    path.write_bytes(b"contents")
    for name in (str(path), f"/proc/{PID}/maps"):
        fd = open_file(client, name)[1:].decode()
        assert ask(client, "pread", fd, "5", "100000") == b"F0;", name
        for offset in ("8000000000000000", "ffffffffffffffff", "10000000000000000"):
            assert ask(client, "pread", fd, "5", offset).startswith(b"F-1,"), (name, offset)
        assert int(ask(client, "pread", fd, "5", "0").partition(b";")[0][1:], 16) == 5, name
