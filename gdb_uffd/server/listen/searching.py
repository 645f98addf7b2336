"""The options that tell where mapped files are looked for, of the server and of the shell."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import List, Optional, Tuple

from gdb_uffd.client.show.progress import progress_text
from gdb_uffd.protocol.messages import Progress, TellProgress
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files import debuginfod
from gdb_uffd.trace.files.compressed import UNLIMITED
from gdb_uffd.trace.files.files_from import split
from gdb_uffd.trace.files.search import DEBUG_DIRECTORIES, FileSearch


def add_options(parser: argparse.ArgumentParser, shell: bool = True) -> None:
    """`--sysroot`, `--debug-directory`, `--files-from`, `--debuginfod`.  `shell`: as elfutils' own
    tools, servers are asked where the environment names some; gdb passes on what it is set to."""
    parser.add_argument(
        "--sysroot", metavar="DIR", default="",
        help="a folder with the files of the recorded machine, under their paths",
    )  # fmt: skip
    parser.add_argument(
        "--debug-directory", metavar="DIR", action="append", default=[],
        help="a folder whose .build-id folder names files by build-id, besides "
        + " and ".join(DEBUG_DIRECTORIES),
    )  # fmt: skip
    parser.add_argument(
        "--solib-search-path", metavar="DIR", action="append", default=[],
        help="a folder with libraries, under their paths or beside each other",
    )  # fmt: skip
    parser.add_argument(
        "--files-from", metavar="PATH", action="append", default=[],
        help="folders and archives with files of the recorded machine, joined by ':': a root, "
        "unpacked packages, a container's /proc/PID/root, an image that `docker save` wrote",
    )  # fmt: skip
    add_limit(parser)
    parser.add_argument(
        "--debuginfod", metavar="URLS",
        default=os.environ.get("DEBUGINFOD_URLS", "") if shell else "",
        help="ask these servers for missing files by build-id ('' for none; else what "
        "DEBUGINFOD_URLS says)",
    )  # fmt: skip


def add_limit(parser: argparse.ArgumentParser) -> None:
    """`--unpack-limit`."""
    parser.add_argument(
        "--unpack-limit", metavar="MIB", type=int, default=0,
        help="how much a compressed core, trace or archive may unpack to; -1: any amount; 0, the "
        "default: what is plausible for its size",
    )  # fmt: skip


def unpack_limit(options: argparse.Namespace) -> int:
    """The same in bytes, as of compressed.Limit."""
    chosen = int(options.unpack_limit)
    return chosen << 20 if chosen > 0 else min(chosen, 0) and UNLIMITED


def missing(options: argparse.Namespace) -> List[str]:
    """The options that name a folder which is not there."""
    named = [("--sysroot", options.sysroot)] if options.sysroot else []
    named += [("--debug-directory", folder) for folder in options.debug_directory]
    named += [("--solib-search-path", folder) for folder in options.solib_search_path]
    return [f"{option} {folder}" for option, folder in named if not os.path.isdir(folder)]


def files_from(options: argparse.Namespace) -> Tuple[str, ...]:
    """Every place of every `--files-from`."""
    return tuple(path for text in options.files_from for path in split(text))


def as_settings(options: argparse.Namespace) -> List[str]:
    """The options as gdb's commands that say the same."""
    wanted = [
        ("sysroot", os.path.abspath(options.sysroot) if options.sysroot else ""),
        ("solib-search-path", ":".join(map(os.path.abspath, options.solib_search_path))),
        ("uffd files-from", ":".join(files_from(options))),
        ("uffd unpack-limit", _limit(options.unpack_limit)),
        ("debuginfod urls", options.debuginfod),
        ("debuginfod enabled", "on" if options.debuginfod else ""),
    ]
    folders = ":".join([*options.debug_directory, *DEBUG_DIRECTORIES])
    if options.debug_directory:
        wanted.append(("debug-file-directory", folders))
    return [f"set {name} {value}" for name, value in wanted if value]


def _limit(mib: int) -> str:
    return str(mib) if mib > 0 else "unlimited" if mib else ""


def chosen(options: argparse.Namespace, tell: Optional[TellProgress] = None) -> FileSearch:
    """What the options say.  `tell`: is told of downloads; else a terminal shows them."""
    sysroot = os.path.abspath(options.sysroot) if options.sysroot else ""
    directories = dict.fromkeys([*options.debug_directory, *DEBUG_DIRECTORIES])
    servers = debuginfod.servers(options.debuginfod)
    folders = [os.path.abspath(folder) for folder in options.solib_search_path]
    return FileSearch(
        sysroot, tuple(directories), servers, tuple(folders), files_from(options), tell or show,
        unpack_limit=unpack_limit(options),
    )  # fmt: skip


def show(now: Optional[Progress]) -> None:
    """In place of the one before, on a terminal only."""
    line = progress_text(now) if now is not None else ""
    if sys.stderr.isatty():
        width = max(20, shutil.get_terminal_size().columns - 1)
        print(f"\r\x1b[K{printable(line)[:width]}", end="", file=sys.stderr, flush=True)
