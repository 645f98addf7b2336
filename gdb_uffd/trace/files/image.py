"""A container's image, or any tar archive, as a tree of files: `docker save`'s archive, an OCI
image layout (archive or folder), or one archive of a root file system.

OCI Image Format Specification: "Image Layout", "Image Manifest", "Image Layer Filesystem
Changeset" (whiteouts).  Nothing of an archive is ever made in the file system here: it is a tree in
memory, whose files are copied one by one (archive.py).
"""

from __future__ import annotations

import json
import mmap
import os
import tarfile
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages import TellProgress
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files.automount import is_file
from gdb_uffd.trace.files.compressed import (
    Limit,
    SparseSink,
    UnpackProgress,
    begins_well,
    compression,
    temporary_file,
    unpack,
)
from gdb_uffd.trace.files.files import FileProblem, close_map, map_file
from gdb_uffd.trace.files.tar import (
    BLOCK,
    FILE,
    FOLDER,
    HARDLINK,
    MAX_PATH,
    SYMLINK,
    Member,
    members,
)

MAX_IMAGES = 64
MAX_LAYERS = 1024
MAX_JSON = 16 << 20  # bytes of a manifest
MAX_LINKS = 40  # path_resolution(7)
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(frozen=True)
class ArchivedFile:
    """A file or link, and the archive that it lies in."""

    member: Member
    archive: memoryview

    def content(self) -> memoryview:
        """Its bytes."""
        return self.archive[self.member.offset : self.member.offset + self.member.size]


Tree = Dict[str, Any]
"""Name to Leaf or to the Tree of a folder."""


def find(tree: Tree, path: str) -> Union[ArchivedFile, Tree, None]:
    """What `path` leads to, links followed inside the tree."""
    found = _walk(tree, path.split("/"), False)
    return found[-1] if found is not None else None


def _walk(tree: Tree, parts: Sequence[str], make: bool) -> Optional[List[Any]]:
    """The folders from the root to where `parts` lead, and that itself; None for nowhere.
    `make`: folders that are not there are made, files in the way replaced."""
    stack: List[Any] = [tree]
    waiting = [part for part in reversed(parts) if part not in ("", ".")]
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            if len(stack) > 1:
                stack.pop()
            continue
        here = stack[-1]
        if not isinstance(here, dict):
            return None
        node = here.get(part)
        if isinstance(node, ArchivedFile) and node.member.kind == SYMLINK:
            links += 1
            if links > MAX_LINKS:
                return None
            if node.member.link.startswith("/"):
                del stack[1:]
            waiting += [p for p in reversed(node.member.link.split("/")) if p not in ("", ".")]
            if len(waiting) > MAX_PATH:
                return None
            continue
        if make and not isinstance(node, dict):
            node = here[part] = {}
        if node is None:
            return None
        stack.append(node)
    return stack


def apply_layer(tree: Tree, layer: Sequence[Member], archive: memoryview) -> None:
    """Lay `layer` over `tree`: what it hides of the layers below goes first, whatever its place in
    the archive."""
    for member in layer:
        name = member.parts[-1]
        if name.startswith(WHITEOUT):
            stack = _walk(tree, member.parts[:-1], False)
            folder = stack[-1] if stack is not None else None
            if isinstance(folder, dict):
                if name == OPAQUE:
                    folder.clear()
                else:
                    folder.pop(name[len(WHITEOUT) :], None)
    for member in layer:
        if not member.parts[-1].startswith(WHITEOUT):
            _put(tree, member, archive)


def _put(tree: Tree, member: Member, archive: memoryview) -> None:
    stack = _walk(tree, member.parts[:-1], True)
    if stack is None or not isinstance(stack[-1], dict):
        return
    folder, name = stack[-1], member.parts[-1]
    if member.kind == FOLDER:
        if not isinstance(folder.get(name), dict):
            folder[name] = {}
    elif member.kind == HARDLINK:
        target = find(tree, member.link)
        if isinstance(target, ArchivedFile):
            folder[name] = target
    else:
        folder[name] = ArchivedFile(member, archive)


def walk(tree: Tree) -> Iterator[Tuple[str, ArchivedFile]]:
    """(path, leaf) of every regular file."""
    waiting: List[Tuple[str, Tree]] = [("", tree)]
    while waiting:
        path, folder = waiting.pop()
        for name, node in folder.items():
            if isinstance(node, dict):
                waiting.append((f"{path}/{name}", node))
            elif node.member.kind == FILE:
                yield f"{path}/{name}", node


class Archive:
    """The images of an archive, or of an OCI layout's folder; UffdError when it is none."""

    def __init__(self, path: str, tell: Optional[TellProgress], limit: int) -> None:
        self._shown = printable(path)
        self._told = UnpackProgress(self._shown, tell)
        self._open: List[mmap.mmap] = []
        self._limit = Limit(self._shown, 0, limit)
        self._layers: Dict[str, memoryview] = {}
        self._folder = path if os.path.isdir(path) else ""
        self._outer: Tree = {}
        try:
            if not self._folder:
                self._whole = self._plain(self._map(path))
                apply_layer(self._outer, list(members(self._whole, self._shown)), self._whole)
            self.trees: List[Tree] = [self._image(layers) for layers in self._images()]
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, FileProblem)):
                raise UffdError(f"{self._shown}: {error}") from error
            raise
        self._told.end()
        if not self.trees:
            self.trees = [self._outer]

    def close(self) -> None:
        """Unmap it."""
        self._layers.clear()
        for data in self._open:
            close_map(data)

    def _map(self, path: str) -> memoryview:
        data = map_file(path).data
        self._open.append(data)
        self._limit.more(len(data))
        return memoryview(data)

    def _check(self, start: bytes) -> None:
        """UffdError where a compressed archive's, or layer's, first block is none of tar's."""
        try:
            if start.strip(b"\0"):
                tarfile.TarInfo.frombuf(start[:BLOCK].ljust(BLOCK, b"\0"), "utf-8", "replace")
        except tarfile.HeaderError as error:
            raise UffdError(f"{self._shown}: unpacks to no tar archive ({error})") from error

    def _plain(self, data: memoryview) -> memoryview:
        """`data`, unpacked into a file without a name when it is compressed."""
        kind = compression(bytes(data[:8]))
        if not kind:
            return data
        fd = temporary_file()
        try:
            sink = SparseSink(fd, self._limit)
            pieces = unpack(_Reader(data), kind, self._shown)
            for piece in begins_well(pieces, BLOCK, self._check):
                sink.write(piece)
                self._told.add(len(piece))
            sink.finish()
            if not sink.size:
                return memoryview(b"")
            unpacked = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self._open.append(unpacked)
        return memoryview(unpacked)

    def _blob(self, name: str) -> Optional[memoryview]:
        """A file of the archive, or of the folder."""
        if self._folder:
            parts = [p for p in name.split("/") if p not in ("", ".", "..")]
            path = os.path.join(self._folder, *parts)
            return self._map(path) if is_file(path) else None
        found = find(self._outer, name)
        return found.content() if isinstance(found, ArchivedFile) else None

    def _json(self, name: str) -> Any:
        data = self._blob(name)
        if data is None or len(data) > MAX_JSON:
            return None
        try:
            return json.loads(bytes(data))
        except (ValueError, RecursionError) as error:
            raise UffdError(f"{self._shown}: its {printable(name)} is damaged") from error

    def _images(self) -> List[List[str]]:
        """The names of each image's layers, the lowest first."""
        found: List[List[str]] = []
        for entry in _list(self._json("manifest.json")):  # docker save
            layers = [n for n in _list(_get(entry, "Layers")) if isinstance(n, str)]
            if layers:
                found.append(layers)
        if not found:
            self._index(self._json("index.json"), found, 0)
        return found[:MAX_IMAGES]

    def _index(self, index: Any, found: List[List[str]], depth: int) -> None:
        for entry in _list(_get(index, "manifests"))[:MAX_IMAGES]:
            if _get(_get(entry, "platform"), "os") == "unknown":
                continue  # an attestation, not an image
            manifest = self._json(_digest(entry))
            if _get(manifest, "manifests") is not None and depth < 4:
                self._index(manifest, found, depth + 1)
            layers = [
                _digest(each)
                for each in _list(_get(manifest, "layers"))
                if any(word in str(_get(each, "mediaType")) for word in (".tar", ".layer."))
            ]
            if layers:
                found.append(layers)

    def _image(self, layers: Sequence[str]) -> Tree:
        tree: Tree = {}
        for name in layers[:MAX_LAYERS]:
            if name not in self._layers:
                data = self._blob(name)
                if data is None:
                    raise UffdError(f"{self._shown}: its layer {printable(name)} is not in it")
                self._layers[name] = self._plain(data)
            shown = f"{self._shown}: layer {printable(name)}"
            archive = self._layers[name]
            apply_layer(tree, list(members(archive, shown)), archive)
        return tree


def _digest(entry: Any) -> str:
    """The blob of a descriptor, as its path: "sha256:…" is blobs/sha256/…."""
    algorithm, _, value = str(_get(entry, "digest") or "").partition(":")
    return f"blobs/{algorithm}/{value}"


def _get(data: Any, name: str) -> Any:
    return data.get(name) if isinstance(data, dict) else None


def _list(data: Any) -> List[Any]:
    return data if isinstance(data, list) else []


class _Reader:
    """A piece of memory, read from its start to its end."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        piece = bytes(self._data[self._at : self._at + size])
        self._at += len(piece)
        return piece
