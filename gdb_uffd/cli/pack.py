"""`gdb-uffd pack` and `unpack`: a core, or a trace, and what it needs elsewhere as one file."""

from __future__ import annotations

import argparse
import os
from typing import Any, List

from gdb_uffd.cli.printing import show
from gdb_uffd.cli.trace import clear_progress, counted, progress, warn
from gdb_uffd.client.show import verdict
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.listen import searching
from gdb_uffd.terminal import printable


def add_commands(commands: Any) -> None:
    """Add both; each sets `run` to what carries it out."""
    pack = commands.add_parser(
        "pack",
        help="make one file of a core (or trace) and the files that it needs elsewhere",
        description="Make one compressed file of a core, the program and the libraries that it is "
        "of, or of a trace.  Run it on the machine where the program crashed; `uffd spawn` opens "
        "the file anywhere.  The last line names what could not be had.",
        epilog="example: gdb-uffd pack --debug core.4711",
    )
    pack.add_argument("trace", metavar="CORE", help="a core, compressed or not, or a trace")
    pack.add_argument(
        "-o", "--output", metavar="FILE", help="else CORE.uffd.zst, or TRACE.zst, beside it"
    )
    pack.add_argument("--debug", action="store_true", help="separate debug files, too (cores only)")
    pack.add_argument("--executable", metavar="PATH", help="where the core does not tell")
    pack.add_argument(
        "--by-reference",
        action="store_true",
        help="leave executables and libraries out (traces only); the receiver must have the same",
    )
    searching.add_options(pack)
    pack.set_defaults(run=pack_)
    unpack = commands.add_parser(
        "unpack",
        help="make a trace, or a core with its files, of a packed one",
        description="Make a directory NAME.uffd of a packed trace; of a packed core a directory "
        "with the core and, below root/, its files, which any gdb takes (set sysroot).",
    )
    unpack.add_argument("trace", metavar="FILE")
    unpack.add_argument(
        "-o", "--output", metavar="NAME", help="else FILE without .zst (CORE.unpacked)"
    )
    searching.add_limit(unpack)
    unpack.set_defaults(run=unpack_)


def pack_(options: argparse.Namespace) -> int:
    """Make one file of a core or a trace."""
    return _trace(options) if os.path.isdir(options.trace) else _core(options)


def _core(options: argparse.Namespace) -> int:
    from gdb_uffd.trace.store.core_pack import default_name, pack_core

    if options.by_reference:
        raise UffdError("--by-reference is for traces; a core without its files is a core")
    search = searching.chosen(options)
    try:
        done = pack_core(
            options.trace,
            options.output or default_name(options.trace),
            executable=options.executable,
            search=search,
            debug=options.debug,
            progress=progress("packed"),
        )
    finally:
        clear_progress()
        warn(search.problems())
        search.close()
    warn([why for _, why in done.missing])
    parts = ["core", counted(done.files, "file")]
    if options.debug:
        parts.append(counted(done.debug, "debug file"))
    line = f"{printable(done.path)}: {done.size / 2**20:,.1f} MiB: {', '.join(parts)}"
    line += _named("missing", [name for name, _ in done.missing])
    line += _named("without debug file", done.bare)
    show(line + verdict.may_hold(done.files_read))
    return 0


def _named(what: str, names: List[str]) -> str:
    return f"; {what}: {', '.join(map(printable, names))}" if names else ""


def _trace(options: argparse.Namespace) -> int:
    from gdb_uffd import trace as traces
    from gdb_uffd.trace.store.pack import default_pack_name, pack
    from gdb_uffd.trace.store.read import StoreTrace

    if options.debug:
        raise UffdError("--debug is for cores; a trace is packed without debug files")
    trace = traces.open(options.trace)
    try:
        if not isinstance(trace, StoreTrace):
            raise UffdError(f"{options.trace}: neither a core nor a trace (NAME.uffd)")
        done = pack(
            trace,
            options.output or default_pack_name(options.trace),
            self_contained=not options.by_reference,
            progress=progress("packed"),
        )
    finally:
        trace.close()
        clear_progress()
    warn([f"{line}; it is not in the packed trace" for line in done.missing])
    print(f"{printable(done.path)}: {done.size / 2**20:,.1f} MiB")
    return 0


def unpack_(options: argparse.Namespace) -> int:
    """Make a directory of a packed core or trace."""
    from gdb_uffd.trace.store.packed import CORE_MARK, packed_kind

    limit = searching.unpack_limit(options)
    if packed_kind(options.trace) == CORE_MARK:
        from gdb_uffd.trace.store.core_pack import SUFFIX
        from gdb_uffd.trace.store.core_packed import unpack_core

        base = options.trace[: -len(SUFFIX)] if options.trace.endswith(SUFFIX) else options.trace
        print(printable(unpack_core(options.trace, options.output or base + ".unpacked", limit)))
        return 0
    from gdb_uffd.trace.store.pack import default_unpack_name, unpack

    target = options.output or default_unpack_name(options.trace)
    print(printable(unpack(options.trace, target, limit)))
    return 0
