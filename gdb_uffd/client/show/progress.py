"""What the server is doing before it is ready, in a line."""

from __future__ import annotations

from gdb_uffd.protocol.messages import Progress


def progress_text(it: Progress) -> str:
    """ "downloading libx.so from http://…: 1.2 of 3.4 MiB"."""
    if it.doing == "asking":
        return f"asking {it.url} for {it.what}"
    if it.doing == "unpacking":
        return f"unpacking {it.what}: {it.done / 2**20:,.0f} MiB"
    size = f"{it.done / 2**20:,.1f}" + (f" of {it.total / 2**20:,.1f}" if it.total else "")
    return f"{download_text(it)}: {size} MiB"


def download_text(it: Progress) -> str:
    """Without how far it is."""
    return f"downloading {it.what} from {it.url}"
