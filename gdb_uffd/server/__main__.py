"""`python -I -m gdb_uffd.server`: what gdb's side starts (docs/protocol.md, "Start-up")."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from typing import Any, Dict, List, Optional

from gdb_uffd import __version__
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.messages import Progress, Ready, Served
from gdb_uffd.protocol.model import PROTOCOL_VERSION, UffdError
from gdb_uffd.terminal import printable

_FAILED = 2


def _say(line: Dict[str, Any]) -> None:
    print(json.dumps(line, ensure_ascii=True), flush=True)


try:
    from gdb_uffd.server.listen import searching, serve
    from gdb_uffd.server.listen.endpoint import ACCEPT_SECONDS
except ImportError as error:  # the native module was not built
    _say({"ready": False, "error": str(error)})
    sys.exit(_FAILED)


def _announce(served: Served) -> None:
    who: Any = {"server": __version__, "pid": os.getpid(), "protocol": PROTOCOL_VERSION}
    _say(to_json(Ready(**vars(served), **who)))


def _tell(now: Optional[Progress]) -> None:
    """A download goes on: whoever started us shows it, and waits."""
    if now is not None:
        _say({"progress": to_json(now)})


def main(argv: Optional[List[str]] = None) -> int:
    """Serve one core to one connection.  Returns the exit code.

    0: served, or whoever started us went away; 1: something of ours failed later, said on
    stderr; 2: not started, said on stdout.
    """
    parser = argparse.ArgumentParser(prog="gdb_uffd.server", description=__doc__)
    parser.add_argument("--socket", required=True, help="where to listen; must not exist")
    parser.add_argument("--core", required=True, help="the core file")
    parser.add_argument("--executable", help="the program, where the core does not tell")
    searching.add_options(parser, shell=False)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is meant for gdb
    serve.drop_when_full(sys.stderr.fileno())
    announced = False

    def ready(served: Served) -> None:
        nonlocal announced
        _announce(served)
        announced = True

    try:
        with serve.termination(signal.SIGTERM, signal.SIGHUP) as wake:
            serve.run(
                options.core,
                options.executable,
                options.socket,
                ready,
                wake=wake,
                watch=serve.pipe_to_watch(sys.stdin.fileno()),
                seconds=ACCEPT_SECONDS,
                search=searching.chosen(options, _tell),
            )
    except serve.Terminated:
        return 0
    except BrokenPipeError:
        # Whoever started us went away before the ready line; nor must Python flush at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        text = str(error)
        if not isinstance(error, UffdError):
            text = f"internal error: {type(error).__name__}: {error}"
        text = " ".join(text.split())
        if announced:
            print(f"gdb_uffd.server: {printable(text)}", file=sys.stderr)
            return 1
        _say({"ready": False, "error": text})
        return _FAILED
    finally:
        # gdb removes it as soon as it is connected, if it lives so long.
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(options.socket))
    return 0


if __name__ == "__main__":
    sys.exit(main())
