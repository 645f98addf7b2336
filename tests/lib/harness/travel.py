"""Cores for another kernel than they were made on: `python -m harness.travel FOLDER`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Dict, List

from harness import cores, programs

MADE = "made.json"


def cpu_has(flag: str) -> bool:
    """Whether this machine's CPU has it (/proc/cpuinfo)."""
    return flag in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()


def make(folder: Path) -> Dict[str, str]:
    """Cores of the sample, the zoo and the vector program in `folder`, with a note of where.

    Those that this kernel made of the same programs stay.
    """
    built = programs.build()
    kept = folder / MADE
    if kept.exists():
        told: Dict[str, str] = json.loads(kept.read_text())
        if (told["kernel"], told["programs"]) == (os.uname().release, str(built)):
            return told
    vector = "avx512" if cpu_has("avx512f") else "avx"
    commands: Dict[str, List[str]] = {
        "sample": [str(built / "sample")],
        "zoo": [str(built / "zoo"), str(built / "plugin.so"), "abort"],
        "vector": [str(built / "vector"), vector],
    }
    made = {"kernel": os.uname().release, "vector_kind": vector, "programs": str(built)}
    for name, command in commands.items():
        shutil.rmtree(folder / name, ignore_errors=True)  # of other programs or another kernel
        core = cores.kernel_core(command, folder / name)
        made[name] = str(core.relative_to(folder))
    (folder / MADE).write_text(json.dumps(made, indent=1) + "\n")
    return made


if __name__ == "__main__":
    print(json.dumps(make(Path(sys.argv[1]))))
