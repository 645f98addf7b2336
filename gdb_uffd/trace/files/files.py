"""The files that the recorded process had mapped: find them, open them, make sure they are
the ones that were mapped.

A file's identity is its build-id where both sides have one, and the recorded bytes of its pages
where there are some (evidence.py); without either, only that it is not newer than the core.
Devices and pipes are never opened.

A file is mapped, not copied: one that is replaced by rename (as package managers do) stays as it
was, one that is overwritten in place changes under us, and reading beyond a new end is SIGBUS.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from array import array
from dataclasses import field
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Protocol, Sequence

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import page_ceil, page_floor
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.elf import ElfError, ElfImage
from gdb_uffd.trace.core.notes import FileRange
from gdb_uffd.trace.files import automount
from gdb_uffd.trace.files.evidence import Pages, contradiction, recorded_pages

DELETED = " (deleted)"
"""What d_path() appends to the name of an unlinked file (proc(5), /proc/pid/maps)."""


_NO_FILE = "no such file"


class FileProblem(Exception):
    """A file that cannot serve; the text is the reason, without the file's name."""


@dataclass(frozen=True)
class FileRef:
    """What a mapped file was when the trace was recorded: its build-id (b"" when it has none),
    size in bytes and time of its last change in ns (0, 0 when not known)."""

    build_id: bytes = b""
    size: int = 0
    mtime_ns: int = 0


@dataclass
class MappedFile:
    """An open regular file, mapped read-only as a whole.  `image` is None unless it is ELF."""

    path: str
    data: mmap.mmap
    mtime_ns: int
    image: Optional[ElfImage] = None
    build_id: bytes = b""

    def ref(self) -> FileRef:
        """What a trace records of it."""
        return FileRef(self.build_id, len(self.data), self.mtime_ns)


NOT_DUMPED = "shared memory, kept out of the core when it was written (coredump_filter)"
_NO_FILES = ("/dev/zero", "/memfd:", "/SYSV")  # what mmap(2), memfd_create(2), shmget(2) are called


def without_mark(path: str) -> str:
    """The path that a deleted file had."""
    return path[: -len(DELETED)] if path.endswith(DELETED) else path


def is_memory(path: str) -> bool:
    """Whether a mapping of that name is one of shared memory, and of no file."""
    return path.endswith(DELETED) and path.startswith(_NO_FILES)


def is_shared(path: str) -> bool:
    """Likewise, also where it has a name; a private mapping of it is not told from a shared one."""
    return is_memory(path) or path.startswith("/dev/shm/")


@dataclass
class Module:
    """The mappings of one file (of one loaded copy of it, for an ELF object).

    `file` is None when the file cannot serve, and `reason` then names it and says why.
    `image` may still be there, read from recorded memory.  `bias`: run-time address minus
    the object's own virtual address; meaningful when `image` is not None.
    """

    path: str
    ranges: List[FileRange] = field(default_factory=list)
    file: Optional[MappedFile] = None
    reason: str = ""
    image: Optional[ElfImage] = None
    debug: Optional[MappedFile] = (
        None  # a separate debug file, named by the user: its symbols serve
    )
    bias: int = 0
    recorded_id: bytes = b""
    ref: Optional[FileRef] = None  # what a trace recorded of the file
    slots: Optional["array[int]"] = None  # where the trace's own copy of it lies, when it serves
    top: int = 0  # end of its address range when that is known from program headers

    @property
    def is_memory(self) -> bool:
        """Whether it is shared memory, which the kernel gives the name of a deleted file."""
        return is_memory(self.path)

    def holds(self, address: int) -> bool:
        """Whether one of its file mappings contains `address`."""
        return any(r.start <= address < r.end for r in self.ranges)


def map_file(path: str) -> MappedFile:
    """Open and map `path`; FileProblem with the reason when that cannot be.

    The path is examined before it is opened: opening a device can have effects, and opening a
    FIFO would wait for its other end (O_NONBLOCK guards the moment between).
    """
    if not path.startswith("/"):
        raise FileProblem("not a file of the file system")
    if not automount.may_look(path):
        raise FileProblem(automount.NOT_ASKED)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileProblem("not a regular file")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise FileProblem("not a regular file")
            if status.st_size == 0:
                raise FileProblem("empty file")
            data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
    except OSError as error:
        raise FileProblem(_plain(error)) from error
    except (ValueError, OverflowError) as error:  # NUL in the name; a size mmap cannot take
        raise FileProblem("cannot be mapped") from error
    opened = MappedFile(path, data, status.st_mtime_ns)
    try:
        opened.image = ElfImage.from_file(data)
        opened.build_id = opened.image.build_id()
    except ElfError:
        opened.image = None  # a data file, or damaged: it then has no symbols
    return opened


def _plain(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _NO_FILE
    if error.errno == errno.EACCES:
        return "permission denied"
    return os.strerror(error.errno) if error.errno else "cannot be read"


class Finder(Protocol):
    """Where files are looked for: trace.search.Search."""

    def by_path(self, path: str) -> Iterable[str]:
        """Places of the file with that path, the likeliest first."""
        ...

    def by_build_id(self, build_id: bytes, path: str) -> Iterable[str]:
        """Files that should have that build-id; `path`: where the one that is meant was."""
        ...


class FileCache:
    """Each path is opened once; a failure is remembered too.  `finder` None: only its own path."""

    def __init__(self, finder: Optional[Finder] = None) -> None:
        self.finder = finder
        self._files: Dict[str, MappedFile] = {}
        self._problems: Dict[str, str] = {}

    def open(self, path: str) -> MappedFile:
        """The mapped file; FileProblem when it cannot be had."""
        if path in self._problems:
            raise FileProblem(self._problems[path])
        if path not in self._files:
            try:
                self._files[path] = map_file(path)
            except FileProblem as problem:
                self._problems[path] = str(problem)
                raise
        return self._files[path]

    def close(self) -> None:
        """Unmap all of them."""
        for opened in self._files.values():
            close_map(opened.data)
        self._files.clear()


def unchanged(cache: FileCache, path: str, ref: FileRef) -> MappedFile:
    """The file `path` as it was when `ref` was taken of it; FileProblem when it is another now."""
    if path.endswith(DELETED) and not automount.is_there(path):
        path = without_mark(path)
    opened = cache.open(path)
    now = opened.ref()
    if ref.build_id or now.build_id:
        same = ref.build_id == now.build_id
    else:
        same = (ref.size, ref.mtime_ns) == (now.size, now.mtime_ns)
    if not same:
        raise FileProblem("is not the file that was mapped")
    return opened


def close_map(data: mmap.mmap) -> None:
    """Unmap `data`; where native code still holds a view of it, its end unmaps it."""
    try:
        data.close()
    except BufferError:
        pass


def object_bias(image: ElfImage, where: FileRange) -> Optional[int]:
    """Run-time minus own address of an object one of whose mappings is `where`, or None."""
    for load in image.loads:
        first = page_floor(load.offset)
        if first <= where.offset < max(page_ceil(load.offset + load.filesz), first + 1):
            return where.start - (page_floor(load.vaddr) + where.offset - first)
    return None


def object_top(image: ElfImage, bias: int) -> int:
    """First page boundary after the object's last segment, at run time."""
    return page_ceil(bias + max((s.vaddr + s.memsz for s in image.loads), default=0))


def group(
    ranges: Sequence[FileRange], cache: FileCache, dumped: Callable[[int, int], bytes]
) -> List[Module]:
    """Modules of `ranges` (sorted by start), in order of address, files not yet checked.

    One path may be loaded twice (dlmopen, a replaced library): a mapping beyond the
    end of the object, as its program headers in the core (else in the file) give it, starts
    the next copy.  `dumped` reads what the core itself holds and raises ElfError elsewhere.
    """
    modules: List[Module] = []
    latest: Dict[str, Module] = {}
    for r in ranges:
        module = latest.get(r.path)
        if module is None or (r.offset == 0 and _begins_another(module, r, dumped)):
            module = latest[r.path] = Module(r.path)
            modules.append(module)
            _examine(module, r, cache, dumped)
        module.ranges.append(r)
    return modules


def _begins_another(module: Module, r: FileRange, dumped: Callable[[int, int], bytes]) -> bool:
    """Whether the object that begins with `r` is not the one of `module`: another copy, or the
    first, where only parts of the file were mapped so far (by a program that reads its symbols)."""
    if module.top:
        return r.start >= module.top
    try:
        ElfImage.from_memory(r.start, dumped)
    except ElfError:
        return False
    return True


def _examine(
    module: Module, first: FileRange, cache: FileCache, dumped: Callable[[int, int], bytes]
) -> None:
    """Fill in what the core itself tells of the object whose first mapping is `first`."""
    if first.offset == 0:
        try:
            module.image = ElfImage.from_memory(first.start, dumped)
            module.bias = module.image.bias
            module.recorded_id = module.image.build_id()
            module.top = object_top(module.image, module.bias)
            return
        except ElfError:
            module.image = None
    try:
        image = cache.open(module.path).image
    except FileProblem:
        return
    bias = object_bias(image, first) if image is not None else None
    if image is not None and bias is not None:
        module.top = object_top(image, bias)


def mismatch(
    module: Module, opened: MappedFile, pages: Pages, core_mtime_ns: int, named: bool = False
) -> str:
    """Why `opened` is not what was mapped as `module`, or "".

    `pages`: what was recorded of the file itself, see evidence.recorded_pages.
    `named`: the user named this file for it, so age alone does not speak against it.
    """
    ref = module.ref
    if module.recorded_id and (opened.build_id or (ref is not None and ref.build_id)):
        if module.recorded_id == opened.build_id:
            return _contradiction(module, opened, pages)
        return (
            f"has build-id {opened.build_id.hex() or '(none)'}, "
            f"the {'core' if ref is None else 'trace'} was made with build-id "
            f"{module.recorded_id.hex()}"
        )
    if ref is not None and ref.mtime_ns and not named:
        if (ref.size, ref.mtime_ns) == (len(opened.data), opened.mtime_ns):
            return ""
        return "is not the file that was mapped (no build-id; its size or time of change differs)"
    if pages:
        return _contradiction(module, opened, pages)
    if opened.mtime_ns > core_mtime_ns and not named:
        return "is newer than the core, and nothing in the core proves it is the file mapped then"
    return ""


def _contradiction(module: Module, opened: MappedFile, pages: Pages) -> str:
    image = module.image
    recorded = image if image is not None and image.data is None else None
    return contradiction(opened.data, opened.image, recorded, pages)


def resolve(
    module: Module, cache: FileCache, pages: Pages, core_mtime_ns: int, named: str = ""
) -> None:
    """Find and check the file of `module`; sets `file` and `image`, or `reason`.

    A file that was deleted while mapped serves only when the same path now holds an object
    with the recorded build-id.
    """
    reasons: List[str] = []
    for path in _candidates(module, cache, named):
        reason = _try(module, cache, pages, core_mtime_ns, path, bool(named))
        if not reason:
            return
        reasons.append(reason)
    # That a file is not in one of many places says less than that the one found is another.
    module.reason = next((r for r in reasons if not r.endswith(_NO_FILE)), reasons[0])


def _candidates(module: Module, cache: FileCache, named: str) -> Iterator[str]:
    """Paths at which the file of `module` may be; at least one."""
    if named or cache.finder is None:
        yield named or module.path
        return
    yield from cache.finder.by_path(module.path)
    if module.recorded_id:
        yield from cache.finder.by_build_id(module.recorded_id, module.path)


def _try(
    module: Module, cache: FileCache, pages: Pages, core_mtime_ns: int, path: str, named: bool
) -> str:
    """Take the file at `path` for `module`; why it cannot serve, or ""."""
    deleted = not named and path.endswith(DELETED) and not automount.is_there(path)
    if deleted:
        path = without_mark(path)
    if deleted and module.is_memory:
        return f"{printable(path)}: {NOT_DUMPED}"
    try:
        opened = cache.open(path)
        problem = mismatch(module, opened, pages, core_mtime_ns, named)
        if deleted and (problem or not module.recorded_id or not opened.build_id):
            problem = "was deleted or replaced while the program had it mapped"
    except FileProblem as error:
        problem = "was deleted while the program had it mapped" if deleted else str(error)
    if problem:
        return f"{printable(path)}: {problem}"
    adopt(module, opened)
    return ""


def adopt(module: Module, opened: MappedFile) -> None:
    """`opened` is the file of `module`."""
    module.file, module.reason = opened, ""
    if opened.image is not None and module.ranges:
        bias = object_bias(opened.image, module.ranges[0])
        if bias is not None:
            module.image, module.bias = opened.image, bias
            module.top = object_top(opened.image, bias)


def adopt_symbols(module: Module, opened: MappedFile) -> None:
    """`opened` is the separate debug file of `module`: its symbols serve, and no byte of it."""
    module.debug = opened
    image, recorded = opened.image, module.image
    if image is not None and recorded is not None:
        module.image = ElfImage(
            image.header, recorded.segments, recorded.read, opened.data, recorded.bias
        )


def evidence(
    module: Module, writable: Callable[[int], bool], recorded: Callable[[int, int], bytes]
) -> Pages:
    """What was recorded of the file of `module` itself."""
    return recorded_pages(module.ranges, writable, recorded)
