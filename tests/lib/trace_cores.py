"""Cores for the tests of the trace: built by hand, and of a program that tells its secrets."""

from __future__ import annotations

import contextlib
import resource
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import pytest
from harness import gdbs

from gdb_uffd.trace.core import elf

PAGE = 4096
NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_AUXV = 1, 2, 3, 6
NT_FILE, NT_SIGINFO = 0x46494C45, 0x53494749


def note(owner: bytes, kind: int, desc: bytes) -> bytes:
    """One ELF note, 4-byte aligned."""
    name = owner + b"\0"
    pad = bytes(-len(name) % 4)
    return (
        struct.pack("<III", len(name), len(desc), kind) + name + pad + desc + bytes(-len(desc) % 4)
    )


def prstatus(tid: int, rsp: int = 0, fs_base: int = 0, signal: int = 0) -> bytes:
    """An NT_PRSTATUS note; the other registers hold their index."""
    gpr = list(range(27))
    gpr[19], gpr[21] = rsp, fs_base
    head = struct.pack("<iiihHQQI", signal, 0, 0, signal, 0, 0, 0x10, tid)
    return note(b"CORE", NT_PRSTATUS, head.ljust(112, b"\0") + struct.pack("<27Q", *gpr) + bytes(8))


def prpsinfo(pid: int, name: bytes) -> bytes:
    """An NT_PRPSINFO note."""
    body = bytes(24) + struct.pack("<I", pid) + bytes(12) + name.ljust(16, b"\0") + bytes(80)
    return note(b"CORE", NT_PRPSINFO, body)


def auxv(*pairs: Tuple[int, int]) -> bytes:
    """An NT_AUXV note, AT_NULL added."""
    return note(b"CORE", NT_AUXV, b"".join(struct.pack("<QQ", *p) for p in (*pairs, (0, 0))))


def nt_file(ranges: Sequence[Tuple[int, int, int, str]], unit: int = PAGE) -> bytes:
    """An NT_FILE note of (start, end, byte offset, path); `unit` is its page size."""
    table = b"".join(struct.pack("<QQQ", s, e, o // unit) for s, e, o, _ in ranges)
    names = b"".join(p.encode() + b"\0" for *_, p in ranges)
    return note(b"CORE", NT_FILE, struct.pack("<QQ", len(ranges), unit) + table + names)


@dataclass
class Load:
    """A PT_LOAD: `data` is dumped, `memsz` its size (0: that of `data`)."""

    vaddr: int
    data: bytes = b""
    memsz: int = 0
    flags: int = 6
    filesz: Optional[int] = None


def core(notes: bytes, loads: Sequence[Load], xnum: bool = False, align: int = PAGE) -> bytes:
    """A core as the kernel lays it out: headers, notes, segments, section 0 last."""
    count = len(loads) + 1
    notes_at = 64 + 56 * count
    at = notes_at + len(notes)
    headers = [struct.pack("<IIQQQQQQ", 4, 0, notes_at, 0, 0, len(notes), 0, 4)]
    body = bytearray()
    for load in loads:
        gap = -(at + len(body)) % align
        body += bytes(gap)
        filesz = len(load.data) if load.filesz is None else load.filesz
        memsz = load.memsz or len(load.data)
        headers.append(
            struct.pack(
                "<IIQQQQQQ", 1, load.flags, at + len(body), load.vaddr, 0, filesz, memsz, PAGE
            )
        )
        body += load.data
    section_at = at + len(body)
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 1, 0, count, 0, 0) if xnum else b""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    phnum = elf.PN_XNUM if xnum else count
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, section_at if xnum else 0, 0,
        64, 56, phnum, 64 if xnum else 0, 1 if xnum else 0, 0,
    )  # fmt: skip
    return header + b"".join(headers) + notes + bytes(body) + section


def simple(notes: bytes = b"", loads: Sequence[Load] = (), **keywords: bool) -> bytes:
    """A core with one thread (TID 77) and at least one page."""
    return core(prstatus(77) + notes, loads or [Load(0x10000, b"x" * PAGE)], **keywords)


TELLTALE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

__thread long tls_value = 1000;
__thread char tls_room[300];
long data_value = 7;
char bss_value[50000];
static pthread_barrier_t all;

static void tell(const char *what, void *where)
{
	printf("%s %d %p\n", what, (int)syscall(SYS_gettid), where);
}

static void *thread(void *number)
{
	void *block = malloc(333);

	strcpy(block, "arena");
	tls_value += (long)number;
	tls_room[0] = 1;
	tell("tls", &tls_value);
	tell("arena", block);
	tell("stack", &number);
	pthread_barrier_wait(&all);
	for (;;)
		pause();
}

__attribute__((noinline)) void checkpoint(void) { __asm__ volatile(""); }

int main(int argc, char **argv)
{
	pthread_t id;
	pthread_attr_t small;
	char *heap = malloc(1000), *anon;
	int on_stack = 3;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 128 << 10);
	pthread_barrier_init(&all, NULL, 3);
	for (long i = 1; i < 3; i++)
		pthread_create(&id, &small, thread, (void *)i);
	pthread_barrier_wait(&all);
	strcpy(heap, "heap");
	anon = mmap(NULL, 5 * 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	anon[0] = 'A';
	tell("tls", &tls_value);
	tell("heap", heap);
	tell("stack", &on_stack);
	tell("data", &data_value);
	tell("bss", bss_value + 40000);
	tell("anon", anon);
	tell("untouched", mmap(NULL, 3 * 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	if (argc > 1) {
		void *library = dlopen(argv[1], RTLD_NOW);
		long *(*value)(void) = library ? (long *(*)(void))dlsym(library, "value") : NULL;

		if (!value)
			puts(dlerror());
		tell("libdata", dlsym(library, "library_data"));
		tell("libtext", (void *)value);
		tell("libmap", library);
		tell("libtls", value());
	}
	fflush(stdout);
	checkpoint();
	abort();
}
"""

LIBRARY = """
__thread long library_tls[100] = {5};
long library_data = 9;
long *value(void) { return library_tls; }
const char big[20000] = {SEED};
"""


@dataclass
class Told:
    """A core and what its program printed: name -> {TID: address}."""

    core: Path
    program: Path
    said: Dict[str, Dict[int, int]] = field(default_factory=dict)
    library: Optional[Path] = None

    def one(self, name: str) -> int:
        """The only address of that name."""
        (address,) = self.said[name].values()
        return address


def _compile(source: str, target: Path, *flags: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build a test program with")
    file = target.with_suffix(".c")
    file.write_text(source)
    command = ["gcc", "-g", "-O0", "-pthread", *flags, "-o", str(target), str(file), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return target


def build_library(folder: Path, seed: int = 1, *flags: str) -> Path:
    """`folder`/libtold.so; another seed gives another build-id."""
    return _compile(
        LIBRARY.replace("SEED", str(seed)), folder / "libtold.so", "-shared", "-fPIC", *flags
    )


def _said(text: str) -> Dict[str, Dict[int, int]]:
    said: Dict[str, Dict[int, int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdigit() and words[2].startswith("0x"):
            said.setdefault(words[0], {})[int(words[1])] = int(words[2], 16)
    return said


def _limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def kernel_told(
    folder: Path, *flags: str, library: bool = True, library_flags: Sequence[str] = ()
) -> Told:
    """The telltale program aborted in `folder`, its core written by the kernel."""
    program = _compile(TELLTALE, folder / "telltale", *flags)
    plugin = build_library(folder, 1, *library_flags) if library else None
    command = [str(program)] + ([str(plugin)] if plugin else [])
    done = subprocess.run(command, cwd=folder, preexec_fn=_limit, capture_output=True)
    cores = sorted(folder.glob("core*"))
    if not cores:
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        pytest.skip(f"the kernel left no core here (core_pattern {pattern!r})")
    return Told(cores[0], program, _said(done.stdout.decode()), plugin)


def gcore_told(folder: Path, *flags: str) -> Told:
    """The same, stopped in checkpoint(), written by gdb's gcore."""
    gdb = next(iter(gdbs.present()), None)
    if gdb is None:
        pytest.skip("no gdb for gcore")
    program = _compile(TELLTALE, folder / "telltale", *flags)
    plugin = build_library(folder)
    target = folder / "core.gcore"
    commands: List[str] = []
    for line in (
        "set debuginfod enabled off",
        "set confirm off",
        "break checkpoint",
        f"run {plugin} > {folder}/said",
        f"gcore {target}",
        "kill",
    ):
        commands += ["-ex", line]
    done = subprocess.run(
        [gdb, "-nx", "-q", "-batch", *commands, str(program)],
        cwd=folder, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if not target.exists():
        pytest.skip(f"gcore wrote nothing: {done.stdout!r} {done.stderr!r}")
    return Told(target, program, _said((folder / "said").read_text()), plugin)


def below(root: Path, path: Path) -> Path:
    """Where `path` is below another root."""
    return root / str(path).lstrip("/")


@contextlib.contextmanager
def relocated(told: Told, root: Path) -> Iterator[None]:
    """The core's program and its library are only below `root`, for a while."""
    assert told.library is not None
    paths = (told.library, told.program)
    for path in paths:
        target = below(root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        path.rename(path.with_suffix(".away"))
    yield
    for path in paths:
        path.unlink(missing_ok=True)
        path.with_suffix(".away").rename(path)
