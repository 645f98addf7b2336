"""Packages of this machine's distribution, of its other suites too, unpacked and never installed.

apt runs with private configurations (apt.conf(5)) made from the machine's own sources: "own" knows
what the machine knows, "suites" Debian's other releases on the same mirrors.  Nothing outside the
cache is written, no root is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

KEYRINGS = Path("/usr/share/keyrings")
SUITES = ("bullseye", "bookworm", "trixie")
"""Debian's releases whose kernels are wanted, with their -security and -backports; a suite that the
mirror no longer holds is passed over."""


class Lacking(Exception):
    """Something that cannot be had here; the text is what a cell of the table says."""


@dataclass(frozen=True)
class Source:
    """One mirror of the machine's own sources."""

    uri: str
    suites: Tuple[str, ...]
    options: str
    """The bracket of a one-line entry (sources.list(5)), "" for none."""


def _one_line(text: str) -> Iterable[Source]:
    for line in text.splitlines():
        found = re.match(r"deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s", line.strip() + " ")
        if found:
            yield Source(found[2], (found[3],), (found[1] or "").strip())


def _deb822(text: str) -> Iterable[Source]:
    for stanza in re.split(r"\n\s*\n", text):
        body = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
        fields = dict(re.findall(r"(?m)^([A-Za-z-]+):\s*(.*)$", body))
        if "deb" not in fields.get("Types", "").split():
            continue
        signed = fields.get("Signed-By", "")
        options = f"[signed-by={signed}]" if signed.startswith("/") else ""
        for uri in fields.get("URIs", "").split():
            yield Source(uri, tuple(fields.get("Suites", "").split()), options)


def machine_sources() -> List[Source]:
    """What apt is configured with here; empty where there is no apt."""
    found: List[Source] = []
    folder = Path("/etc/apt/sources.list.d")
    for path in (folder.with_name("sources.list"), *sorted(folder.glob("*.list"))):
        if path.is_file():
            found += _one_line(path.read_text())
    for path in sorted(folder.glob("*.sources")):
        found += _deb822(path.read_text())
    return found


def _release() -> Dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return {}
    return {k: v.strip('"') for k, v in re.findall(r"(?m)^(\w+)=(.*)$", text)}


def _own_entries() -> List[str]:
    codename = _release().get("VERSION_CODENAME", "")
    return [
        f"deb {s.options} {s.uri} {suite} main"
        for s in machine_sources()
        for suite in s.suites
        if codename and suite.startswith(codename)
    ]


def _suite_entries() -> List[str]:
    codename = _release().get("VERSION_CODENAME", "")
    if _release().get("ID") != "debian" or not codename:
        return []
    entries: List[str] = []
    for source in machine_sources():
        if codename in source.suites:
            names = [n + tail for n in SUITES for tail in ("", "-backports")]
        elif f"{codename}-security" in source.suites:
            names = [f"{n}-security" for n in SUITES]
        else:
            continue
        entries += [f"deb {source.options} {source.uri} {name} main" for name in names]
    return entries


class Apt:
    """apt-get and apt-cache under one private configuration."""

    def __init__(
        self, folder: Path, entries: List[str], status: str, architecture: str = ""
    ) -> None:
        self.folder = folder
        self.entries = entries
        self._ready = False
        for part in ("sources.d", "lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text("\n".join(entries) + "\n")
        (folder / "status").touch()
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout
        (folder / "apt.conf").write_text(
            f'Dir::Etc::SourceList "{folder}/sources.list";\n'
            f'Dir::Etc::SourceParts "{folder}/sources.d";\n'
            f'Dir::State::Lists "{folder}/lists";\n'
            f'Dir::State::status "{status or folder / "status"}";\n'
            f'Dir::Cache "{folder}/cache";\n'
            f'APT::Sandbox::User "{user.strip()}";\n'
            'Acquire::Languages "none";\nAcquire::Retries "2";\n'
            + (f'APT::Architecture "{architecture}";\n' if architecture else "")
            + (f'APT::Architectures {{ "{architecture}"; }};\n' if architecture else "")
        )

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """The command's output; Lacking with its last line when it fails."""
        env = {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=900
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing said"]
            raise Lacking(f"{' '.join(command[:3])} failed: {said[-1]}")
        return done.stdout

    def update(self) -> None:
        """Fetch the lists, once a run; a suite that is gone is no failure."""
        if self._ready:
            return
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise Lacking("no apt and dpkg on this machine")
        if not self.entries:
            raise Lacking("apt's sources on this machine name no Debian mirror")
        try:
            self.run("apt-get", "-qq", "update")
        except Lacking:
            if not any((self.folder / "lists").glob("*_Packages*")):
                raise
        self._ready = True

    def versions(self, package: str) -> List[Tuple[str, Dict[str, str]]]:
        """(version, fields) of a package in every suite, as apt-cache orders them: newest first."""
        self.update()
        found = []
        for stanza in self.run("apt-cache", "show", package).split("\n\n"):
            fields = dict(re.findall(r"(?m)^([A-Za-z-]+): (.*)$", stanza))
            if fields.get("Package") == package:
                found.append((fields["Version"], fields))
        return found

    def unpack(self, packages: List[str], target: Path) -> None:
        """Download and unpack into `target`, which exists complete or not at all."""
        self.update()
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        self.run("apt-get", "-qq", "download", *packages, cwd=part)
        for deb in sorted(part.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(deb), str(part)], check=True)
            deb.unlink()
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)

    def missing(self, packages: List[str]) -> List[str]:
        """The packages and those they need that this machine has not installed, as NAME=VERSION."""
        self.update()
        said = self.run(
            "apt-get", "-qq", "install", "--simulate", "--no-install-recommends", *packages
        )
        return [f"{n}={v}" for n, v in re.findall(r"(?m)^Inst (\S+) (?:\[\S+\] )?\((\S+)", said)]


def own(cache: Path) -> Apt:
    """What fits this machine: its own release."""
    return Apt(cache / "apt-own", _own_entries(), "/var/lib/dpkg/status")


def suites(cache: Path, architecture: str = "") -> Apt:
    """Debian's releases side by side, for what needs nothing of this machine (kernels)."""
    if not architecture:
        return Apt(cache / "apt-suites", _suite_entries(), "")
    entries = [_of(entry, architecture) for entry in _suite_entries()]
    return Apt(cache / f"apt-suites-{architecture}", entries, "", architecture)


def foreign(cache: Path, architecture: str) -> Apt:
    """This machine's own release for another architecture, of which nothing is installed."""
    entries = [_of(entry, architecture) for entry in _own_entries()]
    return Apt(cache / f"apt-{architecture}", entries, "", architecture)


def _of(entry: str, architecture: str) -> str:
    """An entry of sources.list(5) for that architecture."""
    kind, rest = entry.split(None, 1)
    inside, _, after = rest.partition("]") if rest.startswith("[") else ("[", "", f" {rest}")
    options = " ".join(w for w in inside[1:].split() if not w.startswith("arch="))
    return f"{kind} [{f'arch={architecture} {options}'.strip()}]{after}"
