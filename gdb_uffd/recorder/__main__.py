"""`python -I -m gdb_uffd.recorder --fd N`: started by gdb's side, with one end of a socketpair."""

from __future__ import annotations

import argparse
import signal

from gdb_uffd.recorder.service import serve


def main() -> int:
    """Serve until the socket closes."""
    parser = argparse.ArgumentParser(prog="gdb_uffd.recorder")
    parser.add_argument("--fd", type=int, required=True, metavar="N")
    options = parser.parse_args()
    # The end of gdb closes the socket; a terminal's signals are not ours.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    serve(options.fd)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
