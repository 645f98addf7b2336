"""`gdb-uffd import`, `info`, `verify`, `export`: traces in the shell."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from typing import Any, Callable, Dict, List

from gdb_uffd.cli.printing import show
from gdb_uffd.client.show import verdict
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.listen import searching

Handler = Callable[[argparse.Namespace], int]


def add_commands(commands: Any) -> None:
    """Add the subcommands; each sets `run` to what carries it out."""
    _add_import(commands)
    _add_info(commands)
    _add_verify(commands)
    _add_export(commands)


def _add_import(commands: Any) -> None:
    importer = commands.add_parser(
        "import",
        help="make a trace of core files",
        description="Make a trace of the core files of one program, a snapshot of each, in the "
        "order given.  Compressed ones (.zst .gz .xz .lz4) are unpacked on the way.",
    )
    importer.add_argument("cores", metavar="CORE", nargs="+")
    importer.add_argument("-o", "--output", metavar="FILE", required=True, help="FILE.uffd is made")
    importer.add_argument("--executable", metavar="PATH", help="where the cores do not tell")
    importer.add_argument(
        "--self-contained", action="store_true", help="copy executables and libraries into it"
    )
    searching.add_options(importer)
    importer.set_defaults(run=import_)


def _add_info(commands: Any) -> None:
    info = commands.add_parser(
        "info", help="what a trace or core holds", description="What a trace or core holds."
    )
    info.add_argument("trace", metavar="TRACE")
    info.add_argument("--json", action="store_true", help="one line, one JSON object")
    searching.add_options(info)
    info.set_defaults(run=info_)


def _add_verify(commands: Any) -> None:
    check = commands.add_parser(
        "verify",
        help="compare every page of a trace with its checksum",
        description="Compare every page and record of a trace with its checksum, and list those "
        "that are damaged.  Exit status: 0 whole, 1 damaged.",
    )
    check.add_argument("trace", metavar="TRACE")
    check.add_argument("--json", action="store_true", help="one line, one JSON object")
    check.set_defaults(run=verify_)


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="write a snapshot as a core file",
        description="Write a snapshot of a trace as a core file, which any gdb opens.",
    )
    export.add_argument("trace", metavar="TRACE")
    export.add_argument(
        "-n", "--snapshot", metavar="N", default="end", help="number or label; else the last one"
    )
    export.add_argument("-o", "--output", metavar="CORE", required=True)
    export.add_argument("--executable", metavar="PATH", help="where the trace does not tell")
    export.add_argument(
        "--after",
        metavar="EXPRESSION",
        default="",
        help="the state after gdb evaluated this in it, such as 'push(7)'",
    )
    searching.add_options(export)
    export.set_defaults(run=export_)


def warn(lines: List[str]) -> None:
    """Lines for the user, on standard error."""
    show(*(f"warning: {line}" for line in lines), file=sys.stderr)


def import_(options: argparse.Namespace) -> int:
    """Make a trace of cores."""
    from gdb_uffd.trace.store.importing import import_cores

    with closing(searching.chosen(options)) as search:
        done = import_cores(
            options.cores,
            options.output,
            executable=options.executable,
            self_contained=options.self_contained,
            search=search,
        )
        warn(search.problems())
    warn(done.warnings)
    count = counted(done.snapshots, "snapshot")
    read = verdict.may_hold(done.files_read)
    show(f"{done.path}: {count}, {done.pages_stored:,} pages stored{read}")
    return 0


def info_(options: argparse.Namespace) -> int:
    """Show what a trace holds."""
    from gdb_uffd import trace as traces
    from gdb_uffd.trace.store.describe import describe

    with closing(searching.chosen(options)) as search:
        with closing(traces.open(options.trace, None, search)) as trace:
            facts = describe(trace)
        warn(search.problems())
    if options.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, facts))
    for key, value in facts.items():
        if value not in ("", None, []):
            for number, line in enumerate(value if isinstance(value, list) else [_text(value)]):
                name = key.replace("_", " ") if not number else ""
                show(f"{name:{width}}  {line}", indent=width + 2)
    return 0


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def verify_(options: argparse.Namespace) -> int:
    """Check a trace; 1 when something is damaged."""
    from gdb_uffd import trace as traces
    from gdb_uffd.trace.store.read import StoreTrace
    from gdb_uffd.trace.store.verify import TraceVerdict, verify

    trace = traces.open(options.trace)
    try:
        if not isinstance(trace, StoreTrace):
            raise UffdError(f"{options.trace}: a core has no checksums; verify is for traces")
        verdict = verify(trace, progress("verified"))
    finally:
        trace.close()
        clear_progress()
    if options.json:
        print(json.dumps(_verdict_json(verdict)))
        return 0 if verdict.whole else 1
    _print_verdict(options.trace, verdict)
    assert isinstance(verdict, TraceVerdict)
    return 0 if verdict.whole else 1


def counted(number: int, thing: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _print_verdict(path: str, verdict: Any) -> None:
    from gdb_uffd.trace.store.verify import ranges_text

    show(*verdict.problems)
    for bad in verdict.bad:
        show(f"slot {bad.slot}: {bad.reason.split(' (gdb-uffd')[0]}")
        for address, snapshots in sorted(bad.places.items()):
            show(f"  {address:#x} in snapshots {ranges_text(snapshots)}")
        show(*(f"  part of {name}" for name in bad.files))
        if not bad.places and not bad.files:
            show("  belongs to no snapshot")
    what = f"{counted(verdict.snapshots, 'snapshot')}, {counted(verdict.pages, 'page')}"
    state = "all whole" if verdict.whole else counted(len(verdict.bad), "bad page")
    if verdict.problems:
        state += ", " + counted(len(verdict.problems), "other problem")
    show(f"{path}: {what}: {state}")


def _verdict_json(verdict: Any) -> Dict[str, Any]:
    bad = [
        {
            **asdict(b),
            "places": [
                {"address": hex(address), "snapshots": numbers}
                for address, numbers in sorted(b.places.items())
            ],
        }
        for b in verdict.bad
    ]
    return {
        "whole": verdict.whole, "snapshots": verdict.snapshots, "pages": verdict.pages,
        "bad": bad, "problems": verdict.problems,
    }  # fmt: skip


def export_(options: argparse.Namespace) -> int:
    """Write a snapshot as a core."""
    from gdb_uffd.cli.export import export

    return export(options)


def progress(word: str) -> Callable[[int, int], None]:
    """Shows how far it is, now and then, on a terminal only."""
    shown = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal shown
        if sys.stderr.isatty() and time.monotonic() - shown > 0.2 and total:
            shown = time.monotonic()
            print(f"\r{word} {100 * done // total} %", end="", file=sys.stderr, flush=True)

    return show


def clear_progress() -> None:
    """Nothing of it stays on the line."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
