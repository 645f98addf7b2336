"""A minimal machine in a folder: bootstrapped, given this machine's network settings, entered."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Sequence

import packages
from packages import Lacking

PASSED = re.compile(r"PIP_|SSL_CERT_|REQUESTS_CA_BUNDLE$|CURL_CA_BUNDLE$|(?i:[a-z]+_proxy$)")
"""Environment variables that say how this machine reaches package indices."""

USER = "fresh"
USER_ID = 20000
"""The ordinary user there, and its group."""

ENTER = """
set -eu
root=$1 user=$2 command=$3
shift 3
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for path in "$@"; do
  if [ -d "$path" ]; then mkdir -p "$root$path"
  elif [ ! -e "$root$path" ]; then mkdir -p "$(dirname "$root$path")"; : >"$root$path"; fi
  mount --bind "$path" "$root$path"
  mount -o remount,bind,ro "$root$path"
done
exec chroot --userspec="$user:$user" --groups= "$root" sh -c "$command"
"""
"""In mount and PID namespaces of its own: what is mounted and what runs in them ends with it."""


def bootstrap(cache: Path, suite: str, target: Path) -> None:
    """debootstrap(8)'s minbase of a suite whose signature can be checked here; Lacking.

    A Debian suite comes from this machine's mirror, another from debootstrap's own.
    """
    if os.geteuid():
        raise Lacking("debootstrap and chroot(2) need root")
    tool = cache / "debootstrap"
    if not tool.exists():
        packages.own(cache).unpack(["debootstrap"], tool)
    scripts = tool / "usr/share/debootstrap"
    command = [str(tool / "usr/sbin/debootstrap"), "--variant=minbase", "--force-check-gpg"]
    command += [suite, str(target)]
    if suite in packages.SUITES:
        uris = [source.uri.rstrip("/") for source in packages.machine_sources()]
        command += [uri for uri in uris if uri.endswith("/debian")][:1]
    done = subprocess.run(
        command, env={**os.environ, "DEBOOTSTRAP_DIR": str(scripts)},
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise Lacking(f"debootstrap {suite}: {' '.join(said[-2:])}")


def pip_settings() -> Dict[str, str]:
    """pip's settings here, from its files (`pip config list`), without those of the environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"(?m)^([a-z]+\.[a-z-]+)='(.*)'$", said)
    return {name: value.replace("\\n", "\n  ") for name, value in found}


def environment() -> Dict[str, str]:
    """The variables of PASSED."""
    return {name: value for name, value in os.environ.items() if PASSED.match(name)}


def named_paths() -> List[str]:
    """Files and folders that those settings name, as paths or file: addresses."""
    values = [*environment().values(), *pip_settings().values()]
    words = [word for value in values for word in re.split(r"\s+", value)]
    paths = [word[7:] if word.startswith("file:///") else word for word in words]
    found = {path for path in paths if path.startswith("/") and os.path.exists(path)}
    # An index of files names them by `../../files`.
    return sorted(found | {os.path.dirname(p) for p in found if p.endswith("/simple")})


def write_pip_settings(root: Path) -> None:
    """As /etc/pip.conf there."""
    sections: Dict[str, List[str]] = {}
    for name, value in pip_settings().items():
        section, key = name.split(".", 1)
        sections.setdefault(section, []).append(f"{key} = {value}\n")
    text = "".join(f"[{section}]\n{''.join(lines)}" for section, lines in sections.items())
    (root / "etc/pip.conf").write_text(text)


def prepare(root: Path) -> None:
    """A copy gets this machine's ways to names and packages, and an ordinary user."""
    for name in ("resolv.conf", "hosts"):
        if Path("/etc", name).exists():
            (root / "etc" / name).unlink(missing_ok=True)  # a link would lead out of the root
            shutil.copy(f"/etc/{name}", root / "etc" / name)
    write_pip_settings(root)
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    own = re.findall(r"(?mi)^Acquire::(?:https?|Check-[a-z-]+)\b.*$", said.stdout)
    if (root / "etc/apt/apt.conf.d").is_dir():
        (root / "etc/apt/apt.conf.d/99machine").write_text("".join(f"{line}\n" for line in own))
    with open(root / "etc/passwd", "a", encoding="utf-8") as f:
        f.write(f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/sh\n")
    with open(root / "etc/group", "a", encoding="utf-8") as f:
        f.write(f"{USER}:x:{USER_ID}:\n")
    (root / "home" / USER).mkdir(parents=True, exist_ok=True)
    os.chown(root / "home" / USER, USER_ID, USER_ID)


def enter(root: Path, command: str, user: str, log: Path, binds: Sequence[str] = ()) -> int:
    """Run a shell command there; its status.  What it says goes to `log`.

    `binds` are paths of this machine that are there too, read-only.
    """
    env = {
        **environment(),
        "HOME": "/root" if user == "root" else f"/home/{user}",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
    with open(log, "ab") as out:
        out.write(f"== {user}: {command}\n".encode())
        out.flush()
        done = subprocess.run(
            [*namespaces, "sh", "-c", ENTER, "enter", str(root), user, command, *binds],
            env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
        )  # fmt: skip
    return done.returncode
