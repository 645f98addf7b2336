"""`gdb-uffd serve` and `gdb-uffd connect`: a trace for other clients of the protocol."""

from __future__ import annotations

import argparse
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
from typing import Any, Optional, Tuple, Union

from gdb_uffd.cli.trace import warn
from gdb_uffd.outputs import SCRATCH, UNLOCKED
from gdb_uffd.protocol.messages import Served
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.listen import addresses, searching
from gdb_uffd.trace.core.core import USAGE

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
_USAGE = "gdb-uffd serve TRACE [EXECUTABLE]"
_TOKEN_MAX = 4096  # bytes of a token's file
TOKEN_VARIABLE = "GDB_UFFD_TOKEN"


def add_commands(commands: Any) -> None:
    """Register both with argparse."""
    server = commands.add_parser(
        "serve",
        help="serve a core or a trace to any client of gdb's remote protocol",
        description="Serve a core or a trace to one client of gdb's remote protocol, then end. "
        "Whoever connects can run code as you: a unix socket and a loopback port take you alone.",
    )
    server.add_argument("core", metavar="TRACE")
    server.add_argument("executable", metavar="EXECUTABLE", nargs="?")
    where = server.add_mutually_exclusive_group()
    where.add_argument("--listen", metavar="ADDRESS", help=f"where to listen: {addresses.FORMS}")
    where.add_argument("--socket", metavar="PATH", help="as --listen unix:PATH")
    server.add_argument(
        "--expose", action="store_true",
        help="listen on an address that is no loopback one, for whoever has the token",
    )  # fmt: skip
    searching.add_options(server)
    _add_token_file(
        server,
        "a file that holds the token: what clients must send first, on a loopback port too "
        "(with --expose alone one is made and printed)",
    )
    client = commands.add_parser(
        "connect",
        help="a pipe to a server that asks for a token: target remote | gdb-uffd connect ADDRESS",
        description="Send the token to a server, then pass everything on: for gdb as "
        "`target remote | gdb-uffd connect ADDRESS`, for other clients with --listen.",
    )
    client.add_argument("address", metavar="ADDRESS", help=addresses.FORMS)
    client.add_argument(
        "--listen", metavar="ADDRESS", help="take one connection there instead of stdin and stdout"
    )
    _add_token_file(client, f"a file that holds the token; else it is in {TOKEN_VARIABLE}")


def _add_token_file(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--token-file", metavar="FILE", help=text)


def _token(path: Optional[str]) -> str:
    """The token that a file holds, or the environment; "" for none.  UffdError."""
    if not path:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        with open(path, "rb") as file:
            text = file.read(_TOKEN_MAX)
            open_to_others = os.fstat(file.fileno()).st_mode & 0o077
    except OSError as error:
        raise UffdError(f"{path}: {error.strerror}") from error
    if open_to_others:
        warn([f"{path}: others may read it: chmod 600"])
    return addresses.check_token(text.decode("ascii", "replace").strip())


def serve(options: argparse.Namespace) -> int:
    """Serve a trace to one client, in the foreground; Ctrl-C ends it."""
    try:
        from gdb_uffd.server.listen import serve as server
    except ImportError as error:
        raise UffdError(str(error)) from error
    token = ""
    if options.expose or options.token_file:
        token = addresses.check_token(_token(options.token_file) or addresses.new_token())
    directory = None
    where: Union[str, addresses.Port]
    if options.listen:
        where = addresses.parse(options.listen)
    elif options.socket:
        where = os.path.abspath(options.socket)
    else:
        directory = tempfile.mkdtemp(prefix=SCRATCH + UNLOCKED)
        where = os.path.join(directory, "rsp")
    if token and isinstance(where, str):
        option = "--expose" if options.expose else "--token-file"
        raise UffdError(f"{option} is for a port: give --listen HOST:PORT")
    for option in searching.missing(options):
        warn([f"{option}: no such directory"])

    def announce(facts: Served) -> None:
        _announce(facts, "" if options.token_file else token, bool(token))

    try:
        with server.termination(signal.SIGTERM, signal.SIGHUP, signal.SIGINT) as wake:
            server.run(
                options.core, options.executable, where, announce, wake=wake, token=token,
                search=searching.chosen(options),
            )  # fmt: skip
    except server.Terminated:
        return INTERRUPTED
    except UffdError as error:
        raise UffdError(str(error).replace(USAGE, _USAGE)) from error
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


def _reachable(address: str) -> Tuple[str, bool]:
    """How others name the address HOST:PORT that is listened at, and whether other machines do."""
    host, _, port = address.rpartition(":")
    meant = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    name = socket.gethostname() if meant.is_unspecified else host
    return f"{name}:{port}", not meant.is_loopback


def _announce(facts: Served, token: str, asked: bool) -> None:
    for warning in facts.warnings:
        warn([warning])
    if facts.brought:
        print("set auto-load off")  # files that came with the trace may hold scripts
    if facts.sysroot:
        print(f"set sysroot {facts.sysroot}")
    if not asked:
        print(f"target remote {facts.socket}", flush=True)
        return
    where, far = _reachable(facts.socket)
    if far:
        warn(
            [
                "this port can be reached from other machines; whoever has the token can run code "
                "as you, and nothing is encrypted"
            ]
        )
    print(f"target remote | gdb-uffd connect {where}")
    if token:
        print(f"{TOKEN_VARIABLE}={token}")
    sys.stdout.flush()


def connect(options: argparse.Namespace) -> int:
    """Pass bytes between a client and a server that wants a token; 0 when either side ended."""
    token = _token(options.token_file)
    if not token:
        raise UffdError(f"no token: set {TOKEN_VARIABLE}, or give --token-file FILE")
    addresses.check_token(token)
    # gdb passes its Ctrl-C to whatever shares its terminal; the server gets it as a packet.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with addresses.connect(addresses.parse(options.address)) as server:
        addresses.give_token(server, token)
        if not options.listen:
            addresses.relay(server, sys.stdin.fileno(), sys.stdout.fileno())
            return 0
        endpoint = addresses.open_listener(addresses.parse(options.listen))
        try:
            print(f"target remote {endpoint.path}", flush=True)
            client = endpoint.accept(None, None)
        finally:
            endpoint.close()
        if client is not None:
            with client:
                addresses.relay(server, client.fileno(), client.fileno())
    return 0
