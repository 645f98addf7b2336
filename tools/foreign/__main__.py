"""tools/foreign CACHE [NAME...]: cores of programs that crashed in other distributions' roots.

    CACHE/NAME/root/         packages of that distribution, unpacked (not installed), and /app
    CACHE/NAME/PROGRAM.core  the kernel's core of PROGRAM, killed in that root (chroot)
    CACHE/NAME/PROGRAM.json  what a second, equal process in it said when it was alive: gdb 18.1's
                             backtrace, and the value of each expression of asked.py
    CACHE/NAME.skipped       why there is none

Debian's suites come through apt (tools/matrix/packages.py).  A root of anything else may be given:
GDB_UFFD_FOREIGN_ROOTS="ubuntu=/srv/jammy:fedora=/srv/fedora", with a C library and its headers.
Address randomisation is off, so that the process that lived and the one that was killed are alike.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "matrix"), str(Path(__file__).parent)]

import asked  # noqa: E402
import packages  # noqa: E402
from packages import Apt, Lacking  # noqa: E402

SUITES = {
    "debian-11": "bullseye",
    "debian-12": "bookworm",
    "debian-13": "trixie",
    "debian-testing": "testing",
}
FEDORA_LIKE = "fedora-like"
"""Debian testing's files where Fedora has them: /usr/lib64, /usr/lib/.build-id."""
ALPINE_LIKE = "alpine-like"
"""Debian 13's musl, which is C library and dynamic linker in one file."""
MUSL = ("musl", "musl-dev")
MUSL_TRIPLET = "x86_64-linux-musl"
OTHERS = ("ubuntu", "fedora")
PACKAGES = ("libc6", "libc6-dbg", "libc6-dev", "libgcc-s1", "python3-minimal", "base-files")
TRIPLET = "x86_64-linux-gnu"
GDB = ROOT / ".venv-gdb" / "bin" / "gdb"


def suite_root(cache: Path, suite: str, target: Path, wanted: Sequence[str] = PACKAGES) -> None:
    """Unpack a Debian suite's packages; Lacking."""
    codenames = [s for source in packages.machine_sources() for s in source.suites]
    entries = [
        f"deb {source.options} {source.uri} {suite} main"
        for source in packages.machine_sources()
        if any(not s.endswith(("-security", "-updates")) for s in source.suites)
        and "debian" in source.uri
    ]
    if not entries:
        raise Lacking(
            f"apt's sources here ({', '.join(codenames) or 'none'}) name no Debian mirror"
        )
    apt = Apt(cache / f"apt-{suite}", entries[:1], "")
    apt.unpack([p for p in apt.missing(list(wanted)) if p.split("=")[0] not in HEAVY], target)


HEAVY = {"perl-base", "dpkg", "tar", "debconf"}
"""Needed to install packages, not to run their programs."""


def merge_usr(root: Path) -> None:
    """/lib and so on as links into /usr, as all installed systems have them since Debian 12."""
    for name in ("lib", "lib64", "bin", "sbin"):
        old, new = root / name, root / "usr" / name
        if old.is_symlink():
            continue
        new.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            shutil.copytree(old, new, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(old)
        old.symlink_to(f"usr/{name}")


def as_fedora(root: Path) -> None:
    """Libraries in /usr/lib64 beside each other; a link by build-id to each."""
    lib64 = root / "usr" / "lib64"
    for path in sorted((root / "usr" / "lib" / TRIPLET).glob("lib*.so*")):
        target = lib64 / path.name
        if not target.exists() and not target.is_symlink():
            path.rename(target)
        else:
            path.unlink()
    loader = lib64 / "ld-linux-x86-64.so.2"
    if loader.is_symlink():
        real = root / "usr" / "lib" / TRIPLET / "ld-linux-x86-64.so.2"
        loader.unlink()
        real.rename(loader)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "ld.so.conf").write_text("/usr/lib64\n")
    subprocess.run(["/sbin/ldconfig", "-r", str(root)], check=True, stderr=subprocess.DEVNULL)
    sys.path.insert(0, str(ROOT))
    from gdb_uffd.trace.files.folder import build_id_of

    for path in sorted(lib64.glob("lib*.so*")):
        build_id = build_id_of(path.read_bytes()).hex() if path.is_file() else ""
        if build_id and not path.is_symlink():
            link = root / "usr/lib/.build-id" / build_id[:2] / build_id[2:]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../../../usr/lib64/{path.name}")


def relative_links(root: Path) -> None:
    """ld(1) follows absolute links out of its sysroot (Debian 11's libraries have some)."""
    for folder in (root / "lib64", root / "lib" / TRIPLET, root / "usr" / "lib" / TRIPLET):
        for path in folder.glob("*.so*") if folder.is_dir() else ():
            if path.is_symlink() and os.readlink(path).startswith("/"):
                inside = "/" + str(path.relative_to(root))
                target = os.path.relpath(os.readlink(path), os.path.dirname(inside))
                path.unlink()
                path.symlink_to(target)


def build(root: Path) -> None:
    """tests/programs/abroad.c against that root's C library, as /app/abroad; Lacking."""
    app = root / "app"
    app.mkdir(exist_ok=True)
    sources, library = ROOT / "tests" / "programs", app / "libabroad.so"
    musl = root / "usr" / "lib" / MUSL_TRIPLET
    own = _musl(root, musl) if musl.is_dir() else _glibc(root)
    flags = ["gcc", "-g", "-O1", "-fno-omit-frame-pointer", f"--sysroot={root}", "-fPIC"]
    flags += [f"-fdebug-prefix-map={sources}=/src", "-Wl,-z,lazy", "-Wl,--build-id", *own.compile]
    shared = ["-shared", "-Wl,-soname,libabroad.so", str(sources / "abroadlib.c")]
    linked = ["-pthread", str(sources / "abroad.c"), str(library), "-Wl,-rpath,/app", "-lm"]
    for target, rest in ((library, shared), (app / "abroad", [*linked, *own.start])):
        command = [*flags, "-o", str(target), *rest, *own.end]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "error" in line or "ld:" in line]
            raise Lacking(f"gcc --sysroot: {(said or ['it said nothing'])[0]}")


class Libc(NamedTuple):
    """Options of gcc for a C library: for all, what a program begins with, what comes last."""

    compile: List[str]
    start: List[str]
    end: List[str]


def _glibc(root: Path) -> Libc:
    include, lib = root / "usr" / "include", root / "usr" / "lib" / TRIPLET
    own = [f"-isystem{include}", f"-isystem{include}/{TRIPLET}", f"-L{lib}", f"-B{lib}"]
    return Libc([*own, f"-L{root}/usr/lib64"], [f"-Wl,-rpath-link,{root}/usr/lib64"], [])


def _musl(root: Path, lib: Path) -> Libc:
    own = ["-nostdinc", "-nostdlib", f"-isystem{root}/usr/include/{MUSL_TRIPLET}", f"-L{lib}"]
    start = [str(lib / name) for name in ("Scrt1.o", "crti.o", "crtn.o")]
    loader = "-Wl,-dynamic-linker,/lib/ld-musl-x86_64.so.1"
    return Libc(own, [*start, "-pie", loader], ["-lc", "-lgcc"])


class Run:
    """A program that waits in the root, without address randomisation."""

    def __init__(self, root: Path, command: List[str]) -> None:
        self.root = root
        (root / "app" / "run").mkdir(parents=True, exist_ok=True)
        (root / "dev").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            ["setarch", "-R", sys.executable, "-c", _ENTER, str(root), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C"},
            preexec_fn=_unlimited,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        if b"ready" not in self.process.stdout.readline():
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
            self.process.wait()
            raise Lacking(f"{command[0]} does not run in {root}: {(said or ['no word'])[-1]}")
        self.wait_until_it_sleeps()

    def wait_until_it_sleeps(self) -> None:
        """Every thread in pause(2), which is 34."""
        for _ in range(5000):
            tasks = Path(f"/proc/{self.process.pid}/task").glob("*/syscall")
            if all(path.read_text().split()[0] == "34" for path in tasks):
                return
            time.sleep(0.001)
        raise Lacking("it does not come to rest")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def core(self, target: Path) -> None:
        """Killed by SIGSEGV; the kernel's core of it.  Lacking."""
        folder = self.root / "app" / "run"
        self.process.send_signal(signal.SIGSEGV)
        self.process.wait()
        found = sorted(folder.glob("core*"))
        if not found:
            pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
            raise Lacking(f"no core in the root (core_pattern {pattern!r})")
        shutil.move(str(found[0]), target)


_ENTER = """
import os, sys
os.chroot(sys.argv[1])
os.chdir("/app/run")
os.execv(sys.argv[2], sys.argv[2:])
"""


def _unlimited() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def told(run: Run, root: Path, program: str, expressions: List[str]) -> Dict[str, object]:
    """What the live process says under gdb 18.1.  Lacking."""
    script = Path(__file__).with_name("live.py")
    settings = [f"sysroot {root}", f"debug-file-directory {root}/usr/lib/debug", "width 0"]
    settings += [
        "debuginfod enabled off",
        "confirm off",
        "height 0",
        "print frame-arguments scalars",
    ]
    command = [str(GDB), "-nx", "-q", "-batch"]
    for setting in settings:
        command += ["-iex", f"set {setting}"]
    command += [f"{root}{program}", "-p", str(run.process.pid), "-x", str(script)]
    env = {**os.environ, "ASKED": json.dumps(expressions)}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    for line in done.stdout.splitlines():
        if line.startswith("TOLD "):
            said: Dict[str, object] = json.loads(line[5:])
            return said
    raise Lacking(f"gdb 18.1 said nothing of it: {done.stderr.strip()[-200:]}")


def programs(root: Path) -> Dict[str, Tuple[List[str], List[str]]]:
    """Command and expressions of each program that there is."""
    found = {"abroad": (["/app/abroad"], asked.ABROAD)}
    for python in sorted((root / "usr" / "bin").glob("python3.[0-9]*")):
        if python.name.replace(".", "").replace("python", "").isdigit():
            code = "import signal, os; os.write(1, b'ready\\n'); signal.pause()"
            found["python"] = ([f"/usr/bin/{python.name}", "-S", "-c", code], asked.PYTHON)
    return found


def make(cache: Path, name: str, given: Dict[str, str]) -> None:
    """One root, its cores and what was said alive.  Lacking."""
    if os.geteuid():
        raise Lacking("chroot(2) needs root")
    if not GDB.exists():
        raise Lacking("no gdb 18.1 for the live process: run `make gdb`")
    done, part = cache / name, cache / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    root = part / "root"
    if name in given:
        shutil.copytree(given[name], root, symlinks=True)
    elif name in OTHERS:
        raise Lacking(
            f"apt's mirrors here have no {name}; GDB_UFFD_FOREIGN_ROOTS={name}=/path/of/a/root"
        )
    else:
        alpine = name == ALPINE_LIKE
        suite = SUITES.get(name, "trixie" if alpine else "testing")
        suite_root(cache, suite, root, MUSL if alpine else PACKAGES)
        if name != "debian-11":
            merge_usr(root)
    relative_links(root)
    build(root)
    if name == FEDORA_LIKE:
        as_fedora(root)
    # Where it will be: gdb and cores name no other place.
    shutil.rmtree(done, ignore_errors=True)
    part.rename(done)
    root = done / "root"
    try:
        for program, (command, expressions) in programs(root).items():
            run = Run(root, command)
            try:
                said = told(run, root, command[0], expressions)
            finally:
                run.end()
            Run(root, command).core(done / f"{program}.core")
            said["executable"] = command[0]
            (done / f"{program}.json").write_text(json.dumps(said, indent=1) + "\n")
    except BaseException:
        shutil.rmtree(done, ignore_errors=True)
        raise
    (done / "whole").touch()


def main() -> int:
    """Make what is not there; 0 also where some cannot be had."""
    cache = Path(sys.argv[1]).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    pairs = [p.split("=", 1) for p in os.environ.get("GDB_UFFD_FOREIGN_ROOTS", "").split(":") if p]
    given = {pair[0]: pair[-1] for pair in pairs}
    names = sys.argv[2:] or [
        *SUITES,
        FEDORA_LIKE,
        ALPINE_LIKE,
        *OTHERS,
        *(n for n in given if n not in OTHERS),
    ]
    for name in names:
        skipped = cache / f"{name}.skipped"
        if (cache / name / "whole").exists():
            continue
        try:
            make(cache, name, given)
            skipped.unlink(missing_ok=True)
            print(f"foreign: {name}: cores made", flush=True)
        except (Lacking, OSError, subprocess.SubprocessError) as why:
            skipped.write_text(f"{why}\n")
            print(f"foreign: no {name}: {why}", flush=True)
        shutil.rmtree(cache / f"{name}.part", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
