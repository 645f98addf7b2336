"""Damaged cores, traces, packed files and packets, fed to the trace-reading code, the shell's
commands, the server and gdb.

`python fuzz.py` runs under the sanitizers (sanitized.py), reads lines `KIND SEED` and prints a line
of JSON for each: every trial is a fork of this process, with a time, a memory and a file-size
bound.  What a trial does follows from its kind and seed alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import sanitized

sanitized.load()
import inputs  # noqa: E402
import lz4.frame  # noqa: E402
import mutate  # noqa: E402
import packets  # noqa: E402
import zstandard  # noqa: E402
from harness import ROOT, SLOWNESS, gdbs, survivors  # noqa: E402

import gdb_uffd.trace  # noqa: E402
from gdb_uffd import cli  # noqa: E402
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable, UffdError  # noqa: E402
from gdb_uffd.server import __main__ as server_main  # noqa: E402
from gdb_uffd.server.stub import stub  # noqa: E402
from gdb_uffd.trace.store.export import export_snapshot  # noqa: E402
from gdb_uffd.trace.store.read import StoreTrace  # noqa: E402
from gdb_uffd.trace.store.verify import verify  # noqa: E402

BOUND_S = 30.0
"""How long one input may take: the whole ones take less than one."""
ANSWER_S = 12.0
MEMORY = 1500 << 20
"""Bytes resident: a whole one takes 200 MiB under the sanitizer."""
FILE_SIZE = 1 << 30
IN_GDB = 0.04
"""The share that gdb opens, too."""


class Fault(Exception):
    """Something that must not happen; the text tells what."""


def one_line(text: str, where: str) -> None:
    """An error for the user."""
    if "\n" in text.strip() or not text.strip() or len(text) > 3000:
        raise Fault(f"{where}: not one line: {text[:1500]!r}")
    if "nternal error" in text or "Traceback" in text:
        raise Fault(f"{where}: {text[:1500]}")


@contextlib.contextmanager
def refused(where: str) -> Iterator[None]:
    """UffdError is what may be raised."""
    try:
        yield
    except (UffdError, MemoryUnavailable) as error:
        one_line(str(error), where)


def read(path: Path, chance: random.Random, folder: Path) -> None:
    """All that the trace-reading code offers."""
    with refused("open"), contextlib.closing(gdb_uffd.trace.open(str(path))) as trace:
        for warning in trace.warnings:
            one_line(warning, "warning")
        for name in ("start", "end", "0", "l1", "99", "nothing"):
            with refused("find"):
                trace.find(name)
        for info in list(trace.snapshots)[:6]:
            with refused("snapshot"), contextlib.closing(trace.snapshot(info.number)) as snapshot:
                _walk(snapshot, chance)
                if chance.random() < 0.3:
                    with refused("export"):
                        export_snapshot(snapshot, str(folder / f"core{info.number}"))
        count = len(trace.snapshots)
        for a, b in ((0, count - 1), (count - 1, 0), (0, 1), (-1, 1 << 40)):
            with refused("changed_pages"):
                trace.changed_pages(a, b)
        if isinstance(trace, StoreTrace):
            with refused("verify"):
                verify(trace)


def _walk(snapshot: Any, chance: random.Random) -> None:
    for warning in snapshot.warnings:
        one_line(warning, "warning")
    for name in ("malloc", "counter", "_r_debug", "nothing"):
        snapshot.symbol(name)
    for module in list(snapshot.modules())[:50] if callable(snapshot.modules) else []:
        repr(module)
    places = [0, (1 << 64) - 1, 1 << 47]
    chosen = list(snapshot.mappings)
    for mapping in chance.sample(chosen, min(len(chosen), 60)):
        places += [mapping.start, mapping.end - 8, chance.randrange(mapping.start, mapping.end)]
    for at in places:
        snapshot.classify(at)
        for length in (8, PAGE_SIZE, 3 * PAGE_SIZE):
            with refused("read"):
                data = snapshot.read(at, length)
                if len(data) != length:
                    raise Fault(f"read({at:#x}, {length}) gave {len(data)} bytes")
    for thread in snapshot.threads[:20]:
        with refused("tls"):
            snapshot.tls_address(thread.tid, 8, places[3 % len(places)], 0x1000, snapshot.read)


def shell(path: Path, chance: random.Random, folder: Path) -> None:
    """The subcommands of gdb-uffd, in this process."""
    out = str(folder / "out")
    commands = [["info", str(path)], ["info", "--json", str(path)], ["verify", str(path)]]
    commands += [["doctor", str(path)], ["doctor", "--json", str(path)]]
    commands += [["export", str(path), "-o", out], ["export", str(path), "-n", "1", "-o", out]]
    commands += [["pack", str(path), "-o", out], ["unpack", str(path), "-o", out]]
    commands += [
        ["import", str(path), "-o", out],
        ["import", str(path), "-o", out, "--self-contained"],
    ]
    for command in chance.sample(commands, 3):
        said, complained = io.StringIO(), io.StringIO()
        where = f"gdb-uffd {' '.join(command)}"
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
                status = cli.main(command)
        except SystemExit as ended:
            status = int(ended.code or 0)
        told = complained.getvalue()
        for line in told.splitlines():
            one_line(line, where)
        silent = status == 1 and not told and command[0] not in ("verify", "doctor")
        if status not in (0, 1) or silent:
            raise Fault(f"{where}: status {status} {told!r} {said.getvalue()[-300:]!r}")
        left = sorted(os.listdir(folder / "tmp"))
        if left:
            raise Fault(f"{where}: left in TMPDIR: {left}")
        for name in list(folder.glob("out*")):
            if status and command[0] != "import":
                raise Fault(f"{where}: failed, and left {name.name}")
            shutil.rmtree(name) if name.is_dir() else name.unlink()


def _watched(session: Any, packet: bytes, error: Exception, old: Any = stub._failed) -> bytes:
    """Errors of the program itself, with where they came from, on stderr."""
    if not isinstance(error, (UffdError, stub.PacketError, stub.FramingError)):
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        # What is raised of arguments is for the client: ValueError's words are shown as they are.
        if not isinstance(error, ValueError):
            os.write(2, f"internal error at packet {packet[:200]!r}\n{shown}\n".encode())
    return bytes(old(session, packet, error))


def start_server(path: Path, folder: Path) -> Tuple[int, Dict[str, Any], int]:
    """A fork that is the server: its PID, its ready line, and the end of its stdin."""
    socket_path = str(folder / "rsp")
    out_read, out_write = os.pipe()
    in_read, in_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(in_read, 0)
        os.dup2(out_write, 1)
        os.closerange(3, 1024)
        stub._failed = _watched
        faulthandler.enable()
        faulthandler.register(signal.SIGQUIT)  # where it is when it answers no more
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        status = 70
        try:
            status = server_main.main(["--socket", socket_path, "--core", str(path)])
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(out_write)
    os.close(in_read)
    with open(out_read, encoding="utf-8") as lines:
        ready: Dict[str, Any] = {}
        for line in lines:
            ready = json.loads(line)
            if "ready" in ready:
                break
    return pid, ready, in_write


def serve(path: Path, chance: random.Random, folder: Path, count: int, damage: float) -> None:
    """The server, and a client that asks it `count` things."""
    pid, ready, stdin = start_server(path, folder)
    said: List[bytes] = []
    try:
        if ready.get("ready"):
            for warning in ready["warnings"]:
                one_line(warning, "warning")
            functions = _functions(path)
            rsp = packets.Rsp(str(folder / "rsp"), ANSWER_S * SLOWNESS)
            session = packets.Session(rsp, chance, functions)
            try:
                session.begin()
                session.run(count, damage)
                session.leave()
            except packets.Closed:
                pass
            except packets.Hang as hang:
                _where(pid)
                raise Fault(f"server: {hang}; before it: {rsp.said!r}") from None
            finally:
                rsp.sock.close()
                said = rsp.said
        elif ready:
            one_line(str(ready.get("error")), "server")
    finally:
        os.close(stdin)
    began = time.monotonic()
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() - began > 15 * SLOWNESS:
            _where(pid)
            raise Fault("the server did not end with its connection")
        time.sleep(0.005)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    expected = 0 if ready.get("ready") else 2
    if status != expected or not ready:
        raise Fault(f"the server ended by {status}; asked last: {said!r}")


def _where(pid: int) -> None:
    """Have the server write where it is into the log."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGQUIT)
        state = Path(f"/proc/{pid}/status").read_text().splitlines()[2]
        os.write(2, f"{state} {Path(f'/proc/{pid}/wchan').read_text()}\n".encode())
    time.sleep(1.0)


def _functions(path: Path) -> Dict[str, int]:
    found: Dict[str, int] = {}
    with contextlib.suppress(UffdError), contextlib.ExitStack() as stack:
        trace = stack.enter_context(contextlib.closing(gdb_uffd.trace.open(str(path))))
        snapshot = stack.enter_context(contextlib.closing(trace.snapshot(0)))
        for name in ("push", "sum", "half", "dirty_bss", "forever", "malloc", "free"):
            at = snapshot.symbol(name)
            if at is not None:
                found[name] = at
    return found


def in_gdb(path: Path, chance: random.Random, folder: Path) -> None:
    """gdb opens it by our commands, looks and calls."""
    gdb = chance.choice(gdbs.present())
    lines = [f"uffd spawn {path}", "bt 5", "info threads", "x/4i $pc", "print counter"]
    lines += ["uffd call push(7)", "uffd info", "uffd mappings", "uffd dirty", "print push(1)"]
    lines += ["uffd snapshots", "uffd goto 1", "uffd reset", "print 6 * 7"]
    said, status = run_gdb(gdb, ["-x", str(ROOT / "gdbinit.example")], lines, folder)
    if "internal-error" in said or (status is not None and status < 0):
        binary = inputs.make().built / "sample"
        _, alone = run_gdb(gdb, [], [f"file {binary}", f"core-file {path}", *lines[1:5]], folder)
        if alone is not None and alone >= 0:
            raise Fault(f"{gdb} ended by {status}, and alone by {alone}: {said[-1500:]}")
        return
    for word in ("Traceback", "Python Exception", "nternal error"):
        if word in said:
            raise Fault(f"{word} in {gdb}: {said[-2500:]}")
    if status is None:
        raise Fault(f"{gdb} did not end: {said[-1500:]}")
    if "$" not in said or "= 42" not in said:
        raise Fault(f"{gdb} did not reach its last command (status {status}): {said[-1500:]}")


def run_gdb(gdb: str, first: List[str], lines: List[str], folder: Path) -> "tuple[str, int | None]":
    """What gdb said in batch mode, and its exit status; None when it did not end in time."""
    command = [gdb, "-nx", "-q", "-batch", "-iex", "set confirm off", "-iex", "set width 0"]
    command += ["-iex", "set debuginfod enabled off", *first]
    for line in lines:
        command += ["-ex", line]
    env = {**gdbs.environment(folder / "home"), "TMPDIR": str(folder / "tmp")}
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=20 * SLOWNESS)
            return said.decode(errors="replace"), process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            return said.decode(errors="replace"), None


def sparse(data: bytes, path: Path) -> None:
    """Write a file with holes where there are zeros."""
    zeros = bytes(1 << 16)
    with open(path, "wb") as file:
        for at in range(0, len(data), 1 << 16):
            part = data[at : at + (1 << 16)]
            if part != zeros[: len(part)]:
                file.seek(at)
                file.write(part)
        file.truncate(len(data))


def cores(chance: random.Random, folder: Path) -> None:
    """A damaged core."""
    path = folder / "core"
    data = bytearray(chance.choice(inputs.make().cores).read_bytes())
    if chance.random() < 0.03:
        other = chance.choice(inputs.make().cores).read_bytes()
        cut = chance.randrange(len(other))
        data[cut:] = other[cut:]
    mutate.core(chance, data)
    sparse(data, path)
    feed(path, chance, folder)


def traces(chance: random.Random, folder: Path) -> None:
    """A damaged trace."""
    path = folder / "t.uffd"
    shutil.copytree(chance.choice(inputs.make().traces), path)
    mutate.trace(chance, path)
    feed(path, chance, folder)


def packed(chance: random.Random, folder: Path) -> None:
    """A damaged packed trace, packed core or compressed core; damaged before or after packing."""
    whole = chance.choice(inputs.make().packed)
    path = folder / whole.name
    data = bytearray(whole.read_bytes())
    if chance.random() < 0.4:
        for _ in range(chance.choice([1, 2, 5])):
            head = 64 if chance.random() < 0.5 else 0
            mutate.raw(chance, data, 0, head)
        path.write_bytes(data)
    elif chance.random() < 0.05:
        size = chance.choice([1 << 24, 1 << 27, 1 << 28])
        path.write_bytes(_bomb(path.suffix, size, bytes(data[: chance.choice([0, 100, 4096])])))
    else:
        inner = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(_zst(whole)))
        mutate.tar(chance, inner) if inner[257:262] == b"ustar" else mutate.core(chance, inner)
        inputs.compress(bytes(inner), path)
    feed(path, chance, folder)


def _zst(whole: Path) -> bytes:
    """The whole file as zstd has it, whichever way it is packed."""
    if whole.suffix == ".zst":
        return whole.read_bytes()
    return whole.with_name("core.zst").read_bytes()


def _bomb(suffix: str, size: int, first: bytes) -> bytes:
    """Little that unpacks to much."""
    if suffix == ".lz4":
        with lz4.frame.LZ4FrameCompressor() as packer:
            return packer.begin() + packer.compress(first + bytes(size >> 6)) + packer.flush()
    packer = zstandard.ZstdCompressor(level=1).compressobj(size=-1)
    out = packer.compress(first)
    for _ in range(size >> 22):
        out += packer.compress(bytes(1 << 22))
    return out + packer.flush()


def packets_(chance: random.Random, folder: Path) -> None:
    """A whole core or trace, and a client that is not."""
    made = inputs.make()
    path = chance.choice([*made.cores, *made.traces, *made.traces])
    serve(path, chance, folder, chance.choice([10, 30, 60]), chance.choice([0.0, 0.2, 0.7]))


def feed(path: Path, chance: random.Random, folder: Path) -> None:
    """The input to one reader of it."""
    drawn = chance.random()
    if drawn < IN_GDB:
        in_gdb(path, chance, folder)
    elif drawn < 0.45:
        serve(path, chance, folder, chance.choice([5, 15, 25]), 0.05)
    elif drawn < 0.75:
        read(path, chance, folder)
    else:
        shell(path, chance, folder)


KINDS: Dict[str, Callable[[random.Random, Path], None]] = {
    "cores": cores,
    "traces": traces,
    "packed": packed,
    "packets": packets_,
}


def trial(kind: str, seed: int, folder: Path) -> None:
    """In a process of its own.  Fault, or any exception, is a fault."""
    tempfile.tempdir = str(folder / "tmp")
    os.environ["TMPDIR"] = tempfile.tempdir
    os.environ.pop("LD_PRELOAD", None)  # of what is started from here
    survivors.become_subreaper()
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    faulthandler.dump_traceback_later(2 * BOUND_S * SLOWNESS - 5)
    KINDS[kind](random.Random(f"{kind} {seed}"), folder)
    left = survivors.remaining(seconds=5)
    if left:
        raise Fault(f"left running: {left}")
    scratch = os.listdir(folder / "tmp")
    if scratch:
        raise Fault(f"left in TMPDIR: {scratch}")


def run(kind: str, seed: int) -> Dict[str, Any]:
    """One trial in a fork: {"fault": "" or what, "seconds": , "bytes": resident at most}."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="uffd-torture-", dir=base))
    (folder / "tmp").mkdir()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        status = 71
        try:
            os.setsid()
            for number in (1, 2):
                log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, number)
            trial(kind, seed, folder)
            status = 0
        except Fault as fault:
            os.write(2, f"FAULT: {fault}\n".encode(errors="replace"))
        except BaseException:
            os.write(2, ("FAULT: " + traceback.format_exc()).encode(errors="replace"))
        finally:
            os._exit(status)
    fault = _watch(pid, began)
    seconds = time.monotonic() - began
    status, used = os.wait4(pid, 0)[1:]
    code = os.waitstatus_to_exitcode(status)
    try:
        log = (folder / "log").read_text(errors="replace")
    except OSError:
        log = ""
    loud = any(
        word in log for word in ("ERROR: AddressSanitizer", "runtime error:", "internal error")
    )
    if not fault and (code or loud):
        fault = f"ended by {code}"
    for pid in survivors.ours():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    while True:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        break
    told = {"kind": kind, "seed": seed, "fault": fault, "log": log[-6000:] if fault else ""}
    if not fault or os.environ.get("UFFD_TORTURE_KEEP") is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        told["folder"] = str(folder)
    return {**told, "seconds": round(seconds, 3), "bytes": used.ru_maxrss << 10}


def _watch(pid: int, began: float) -> str:
    """Wait for its end, and bring it about where it takes too long or too much."""
    pidfd = os.pidfd_open(pid)
    try:
        while not select.select([pidfd], [], [], 0.1)[0]:
            group = [pid, *survivors._descendants(pid)]
            if time.monotonic() - began > 2 * BOUND_S * SLOWNESS:
                why = f"did not end in {2 * BOUND_S:.0f} s"
            elif max(map(_resident, group)) > MEMORY:
                why = f"takes more than {MEMORY >> 20} MiB: {list(map(_resident, group))}"
            else:
                continue
            for one in group:
                with contextlib.suppress(OSError):
                    os.kill(one, signal.SIGKILL)
            return why
        return ""
    finally:
        os.close(pidfd)


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE_SIZE
    except (OSError, IndexError):
        return 0


def main() -> int:
    """Trials as they are asked for."""
    survivors.become_subreaper()
    inputs.make()
    for line in sys.stdin:
        kind, seed = line.split()
        print(json.dumps(run(kind, int(seed))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
