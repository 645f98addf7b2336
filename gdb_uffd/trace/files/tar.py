"""The members of a tar archive that nobody vouches for: headers only, each length bounded.

POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar's long names.
"""

from __future__ import annotations

import tarfile
from typing import Dict, Iterator, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import UffdError

BLOCK = tarfile.BLOCKSIZE  # 512 bytes
MAX_MEMBERS = 2_000_000
MAX_EXTENDED = 1 << 20  # bytes of one extended header: names, times, attributes
MAX_PATH = 4096  # PATH_MAX (<linux/limits.h>)

FILE, FOLDER, SYMLINK, HARDLINK, OTHER = "file", "folder", "symlink", "hardlink", "other"
_KINDS = {
    **dict.fromkeys((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE), FILE),
    tarfile.DIRTYPE: FOLDER,
    tarfile.SYMTYPE: SYMLINK,
    tarfile.LNKTYPE: HARDLINK,
}


@dataclass(frozen=True)
class Member:
    """`parts`: its path, without "", "." and ".."; `offset`, `size`: where its bytes lie;
    `link`: what it is a link to, as written."""

    parts: Tuple[str, ...]
    kind: str
    offset: int
    size: int
    link: str = ""
    mtime: int = 0


def path_parts(path: str) -> Optional[Tuple[str, ...]]:
    """The names in `path`; None for one that climbs, is too long, or has NUL in it."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    return None if ".." in parts or len(path) > MAX_PATH or "\0" in path else parts


def members(data: memoryview, shown: str) -> Iterator[Member]:
    """Those of the archive `data`, in order; UffdError when it is damaged or ends early.
    `shown`: its name for the user."""
    at = count = 0
    more: Dict[str, str] = {}
    while at + BLOCK <= len(data):
        try:
            block = bytes(data[at : at + BLOCK])
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return
        except (tarfile.HeaderError, ValueError) as error:
            raise UffdError(f"{shown}: damaged tar archive ({error})") from error
        at += BLOCK
        count += 1
        if count > MAX_MEMBERS:
            raise UffdError(f"{shown}: more than {MAX_MEMBERS:,} members; not read further")
        if info.type == tarfile.GNUTYPE_SPARSE:
            at = _past_sparse_map(data, at)
        size = int(more.get("size", "")) if more.get("size", "").isdigit() else info.size
        if info.type not in _KINDS and info.type not in _EXTENDED:
            size = info.size
        if size < 0 or at + size > len(data):
            raise UffdError(f"{shown}: truncated tar archive; get it again")
        if info.type in _EXTENDED:
            if size > MAX_EXTENDED:
                raise UffdError(f"{shown}: damaged tar archive (a header of {size} bytes)")
            if info.type != tarfile.XGLTYPE:
                more.update(_extended(info.type, bytes(data[at : at + size])))
        else:
            yield from _member(info, more, at, size)
            more = {}
        at += size + -size % BLOCK
    if at > len(data):
        raise UffdError(f"{shown}: truncated tar archive; get it again")


_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)


def _member(info: tarfile.TarInfo, more: Dict[str, str], at: int, size: int) -> Iterator[Member]:
    parts = path_parts(more.get("path", info.name))
    if not parts:
        return  # the root itself, or nothing that may be looked at
    kind = _KINDS.get(info.type, OTHER)
    if any(key.startswith("GNU.sparse.") for key in more):
        kind = OTHER
    link = more.get("linkpath", info.linkname)
    stored = size if kind == FILE else 0
    yield Member(parts, kind, at, stored, link[:MAX_PATH], max(0, int(info.mtime)))


def _extended(kind: bytes, raw: bytes) -> Dict[str, str]:
    """What an extended header says of the member after it."""
    if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        name = "path" if kind == tarfile.GNUTYPE_LONGNAME else "linkpath"
        return {name: _text(raw.split(b"\0")[0])}
    found: Dict[str, str] = {}
    at = 0
    while at < len(raw):  # "%d %s=%s\n", the length that of the whole record
        length, blank, _ = raw[at : at + 20].partition(b" ")
        if not blank or not length.isdigit() or not 0 < int(length) <= len(raw) - at:
            break
        record = raw[at + len(length) + 1 : at + int(length)]
        key, equals, value = record.partition(b"=")
        if equals:
            found[_text(key)] = _text(value.rstrip(b"\n"))
        at += int(length)
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _past_sparse_map(data: memoryview, at: int) -> int:
    """Old GNU sparse files: further blocks of the map follow while a flag says so (GNU tar manual,
    "Basic Tar Format", struct oldgnu_header, struct sparse_header)."""
    more = data[at - BLOCK + 482]
    while more and at + BLOCK <= len(data):
        more = data[at + 504]
        at += BLOCK
    return at
