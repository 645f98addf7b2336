"""serve.py PROGRAM: serve a core of PROGRAM as it stands at its entry; print SOCKET=PATH.

The core is made by a native gdb (`UFFD_GDB`) and kept beside the others in `UFFD_WORK`/cores as
long as the program is the same file: a script may put an older one in its place.  Whoever runs the
tests ends the server: it has the script's UFFD_WORK.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS_TO_OPEN = 60


def make_core(program: Path, work: Path) -> Path:
    """A core of `program` at _start, where its libraries are ready, else at its very start."""
    facts = program.stat()
    key = f"{program} {facts.st_ino} {facts.st_mtime_ns}".encode()
    core = work / "cores" / (hashlib.sha256(key).hexdigest()[:16] + ".core")
    core.parent.mkdir(exist_ok=True)
    if core.exists():
        return core
    gdb = [os.environ["UFFD_GDB"], "-nx", "-batch", "-iex", "set debuginfod enabled off"]
    gdb += ["-ex", f"file {program}"]
    for start in (["-ex", "tbreak *_start", "-ex", "run"], ["-ex", "starti"]):
        command = [*gdb, *start, "-ex", f"gcore {core}", "-ex", "kill"]
        with open(core.with_suffix(".log"), "a") as log:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=60,
                cwd=program.parent,
            )
        if core.exists():
            return core
    raise SystemExit(
        f"serve.py: no core could be made of {program}, see {core.with_suffix('.log')}"
    )


def serve(core: Path, work: Path) -> Path:
    """Start a server for one client; its socket, once it listens."""
    folder = Path(tempfile.mkdtemp(prefix="s", dir=work))
    path = folder / "rsp"
    command = [os.environ["UFFD_PROGRAM"], "serve", str(core), "--listen", f"unix:{path}"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + SECONDS_TO_OPEN
    while not path.exists():
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"serve.py: the server did not start: {(folder / 'log').read_text()}")
        time.sleep(0.02)
    return path


def main() -> None:
    program, work = Path(sys.argv[1]).resolve(), Path(os.environ["UFFD_WORK"])
    print(f"SOCKET={serve(make_core(program, work), work)}")


if __name__ == "__main__":
    main()
