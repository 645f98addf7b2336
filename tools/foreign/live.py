"""Inside gdb, attached to the live process: prints one line, TOLD and JSON."""

import json
import os

import gdb


def value(expression: str) -> str:
    """What `print` shows after `$N = `."""
    try:
        return gdb.execute(f"print {expression}", False, True).strip().partition(" = ")[2]
    except gdb.error as error:
        return f"error: {error}"


backtrace = gdb.execute("backtrace", False, True).splitlines()
threads = [
    gdb.execute(f"thread apply {thread.num} backtrace 3", False, True).splitlines()[2:]
    for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num)
]
said = {
    "backtrace": backtrace,
    "threads": threads,
    "asked": json.loads(os.environ["ASKED"]),
    "values": [value(expression) for expression in json.loads(os.environ["ASKED"])],
}
print("TOLD " + json.dumps(said))
