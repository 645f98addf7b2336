"""gdb's own test-suite as the judge: natively, through gdbserver and through our stub.

`make dejagnu` runs the scripts of scripts.txt (DEJAGNU_ARGS names others) under three boards and
writes docs/dejagnu.md.  Each script's result is kept in .cache/dejagnu/results, so that a run that
was stopped goes on; `--again BOARD` forgets that board's.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import table

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
CACHE = CHECKOUT / ".cache" / "dejagnu"
BOARDS = {"native": "unix", "gdbserver": "native-stdio-gdbserver", "ours": "uffd"}
SITE = """\
foreach name {LD_LIBRARY_PATH TCL_LIBRARY TCLLIBPATH} { unset -nocomplain env($name) }
set host_triplet x86_64-pc-linux-gnu
set target_triplet x86_64-pc-linux-gnu
set build_triplet x86_64-pc-linux-gnu
set srcdir %s
set tool gdb
set INTERNAL_GDBFLAGS {-nw -nx -eiex "set startup-quietly off" -iex "set debuginfod enabled off"}
append INTERNAL_GDBFLAGS { -iex "set height 0" -iex "set width 0"}
source ${srcdir}/lib/append_gdb_boards_dir.exp
"""


def choose(patterns: list[str]) -> list[str]:
    """The scripts of scripts.txt, or those of the test-suite that the patterns name."""
    if not patterns:
        lines = (HERE / "scripts.txt").read_text().split("\n")
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    suite = CACHE / "gdb" / "testsuite"
    return [str(path.relative_to(suite)) for one in patterns for path in sorted(suite.glob(one))]


def environment(work: Path) -> dict[str, str]:
    root = CACHE / "root" / "usr"
    own = {
        "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(next(root.glob("lib/*/libtcl*.so")).parent),
        "TCL_LIBRARY": str(next(root.glob("share/tcltk/tcl8*"))),
        "DEJAGNU": str(work / "global.exp"),
        "DEBUGINFOD_URLS": "",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "UFFD_WORK": str(work),
        "UFFD_GDB": str(CHECKOUT / ".venv-gdb" / "bin" / "gdb"),
        "UFFD_PROGRAM": str(CHECKOUT / ".venv" / "bin" / "gdb-uffd"),
        "UFFD_SERVE": f"{sys.executable} {HERE / 'serve.py'}",
    }
    return {**os.environ, **own}


def run_script(board: str, script: str, limit: float, keep: bool) -> str:
    """Run one script under one board; its .sum, .log and .json go to the results."""
    name = table.short(script)
    results, work = CACHE / "results" / board, CACHE / "work" / board / name
    results.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "boards").symlink_to(HERE / "boards")
    (work / "global.exp").write_text("")
    (work / "site.exp").write_text(SITE % (CACHE / "gdb" / "testsuite"))
    gdb = CHECKOUT / ".venv-gdb" / "bin" / "gdb"
    command = [
        str(CACHE / "root" / "usr" / "bin" / "runtest"),
        f"GDB={gdb}",
        f"GDBSERVER={gdb}server",
    ]
    command += ["GDB_DATA_DIRECTORY=", "--target_board", BOARDS[board], script]
    began = time.monotonic()
    with open(work / "out", "w") as out:
        process = subprocess.Popen(
            command, cwd=work, env=environment(work), stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    end_all(work)
    for kind in ("sum", "log"):
        if (work / f"gdb.{kind}").exists():
            shutil.copy(work / f"gdb.{kind}", results / f"{name}.{kind}")
    seconds = time.monotonic() - began
    (results / f"{name}.json").write_text(
        json.dumps({"ended": ended, "seconds": round(seconds, 1)})
    )
    if not keep:
        shutil.rmtree(work, ignore_errors=True)
    return f"{seconds:6.1f} s  {board:9}  {script}  {'' if ended else 'ended by the limit'}"


def run_boards(script: str, options: argparse.Namespace) -> list[str]:
    """Run a script under each board that has no result of it; no further where one did not end."""
    said = []
    for board in options.boards.split(","):
        facts = CACHE / "results" / board / f"{table.short(script)}.json"
        if not facts.exists() or board in options.again:
            said.append(run_script(board, script, options.limit, options.keep))
        if not json.loads(facts.read_text())["ended"]:
            break
    return said


def end_all(work: Path) -> None:
    """End what a script left: our servers, gdbs, programs; each has the script's UFFD_WORK."""
    mark = f"UFFD_WORK={work}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue  # ended meanwhile, or another user's


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "scripts", nargs="*", help="gdb.base/step-test.exp, gdb.mi/*.exp … (else scripts.txt)"
    )
    parser.add_argument("--boards", default="gdbserver,ours,native")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=150, help="seconds for a script")
    parser.add_argument(
        "--again", action="append", default=[], metavar="BOARD", choices=list(BOARDS)
    )
    parser.add_argument("--keep", action="store_true", help="keep each script's programs and cores")
    parser.add_argument("--table-only", action="store_true", help="run nothing, write the table")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if (CACHE / "skipped").exists():
        print(f"dejagnu: skipped: {(CACHE / 'skipped').read_text().strip()}")
        return 0
    scripts = choose(options.scripts)
    if not options.table_only:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            jobs = [pool.submit(run_boards, script, options) for script in scripts]
            for number, job in enumerate(concurrent.futures.as_completed(jobs), 1):
                for line in job.result():
                    print(f"{number}/{len(jobs)}  {line}", flush=True)
    return table.write(
        CACHE / "results", scripts, HERE / "known.txt", CHECKOUT / "docs" / "dejagnu.md"
    )


if __name__ == "__main__":
    sys.exit(main())
