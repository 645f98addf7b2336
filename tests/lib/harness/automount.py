"""A mount of autofs whose automounter is the test: it sees who makes it ask for a name.

Linux, Documentation/filesystems/autofs.rst ("Communicating with autofs: the event pipe") and
<linux/auto_fs.h>."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import threading
import traceback
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

CLONE_NEWNS, MS_PRIVATE, MS_REC, MNT_DETACH = 0x20000, 1 << 18, 1 << 14, 2
AUTOFS_IOC_FAIL = 0x9361
_PIDFD_GETFD = 438  # everywhere (pidfd_getfd(2))
_PACKET = struct.Struct("<iiIIQIIIII256s")  # struct autofs_v5_packet
_SKIPPED = "skipped: "
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        pytest.skip(f"a mount of autofs wants root and the kernel's support: {os.strerror(code)}")


class Automount:
    """`kind`: "indirect" (each name below the folder is asked for) or "direct" (the folder is)."""

    def __init__(self, folder: Path, kind: str = "indirect") -> None:
        self.folder = folder
        self.asked: List[str] = []
        self._other = subprocess.Popen(
            ["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._read, self._write = os.pipe()
        # Who is of the automounter's process group makes it ask for nothing: here that is a shell.
        options = f"fd={self._write},pgrp={self._other.pid},minproto=5,maxproto=5,{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        where = os.fsencode(folder)
        try:
            _check(_libc.mount(b"test", where, b"autofs", 0, options.encode()))
        except BaseException:
            self._end()
            raise
        # Who opens it asks; so the shell does, which may.
        self._tell(f"exec 9<'{folder}'")
        pidfd = os.pidfd_open(self._other.pid)
        self._root = _libc.syscall(_PIDFD_GETFD, pidfd, 9, 0)
        os.close(pidfd)
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        # Those of the process are for whoever waits for a child, which they wake.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            packet = os.read(self._read, 4096)
            if len(packet) < _PACKET.size:
                return
            fields = _PACKET.unpack(packet[: _PACKET.size])
            self.asked.append(os.fsdecode(fields[-1][: fields[-2]]))
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._root, AUTOFS_IOC_FAIL, fields[2])

    def mount(self, path: Path, content: str) -> None:
        """As an automounter does: another file system at `path`, with the file "it" in it."""
        at = f"'{path}'"
        self._tell(f"mkdir -p {at}; mount -t tmpfs none {at}; echo {content} > {at}/it")

    def unmount(self, path: Path) -> None:
        """As it does after a while: what was mounted at `path` is not there any more."""
        self._tell(
            f"umount '{path}'; cd '{self.folder}' && rmdir -p '{path.relative_to(self.folder)}'"
        )

    def _tell(self, command: str) -> None:
        shell = self._other
        assert shell.stdin is not None and shell.stdout is not None
        shell.stdin.write(f"{command}; echo\n".encode())
        shell.stdin.flush()
        assert shell.stdout.readline()

    def _end(self) -> None:
        os.close(self._write)
        self._other.kill()
        self._other.communicate()

    def close(self) -> None:
        """Unmount it."""
        os.close(self._root)
        _libc.umount2(os.fsencode(self.folder), MNT_DETACH)
        os.write(self._write, b"end")
        self._thread.join()
        self._end()
        os.close(self._read)


@contextlib.contextmanager
def automounted(folder: Path, kind: str = "indirect") -> Iterator[Automount]:
    """One that is there meanwhile, and that really is asked: by whoever looks."""
    made = Automount(folder, kind)
    try:
        probe = folder / "probe" if kind == "indirect" else folder
        assert subprocess.run(["ls", str(probe)], capture_output=True).returncode
        assert made.asked, "the automounter was not asked"
        made.asked.clear()
        yield made
    finally:
        made.close()


def in_own_namespace(function: Callable[[], Any]) -> None:
    """Run `function` in a process whose mounts nobody else sees; skips where that cannot be."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "the process ended"
        try:
            _check(_libc.unshare(CLONE_NEWNS))
            _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
            function()
            said = ""
        except pytest.skip.Exception as skipped:
            said = f"{_SKIPPED}{skipped}"
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(theirs, said.encode()[-60000:])
            os._exit(0)
    os.close(theirs)
    with open(ours, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if said.startswith(_SKIPPED):
        pytest.skip(said[len(_SKIPPED) :])
    if said:
        pytest.fail(said, pytrace=False)
