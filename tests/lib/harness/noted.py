"""What programs note of their writes ("0xADDRESS SIZE NAME"), and what a report tells of them."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Tuple

_NOTE = re.compile(r"^0x([0-9a-f]+) ([0-9a-f]+) (.+)$", re.M)

Place = Tuple[str, int, int]
"""Name, address, bytes."""


def notes(data: Dict[str, Any]) -> List[Place]:
    """The writes that the program noted in its output, sorted."""
    found = [(m[3], int(m[1], 16), int(m[2], 16)) for m in _NOTE.finditer(data["output"])]
    return sorted(found)


def changes(data: Dict[str, Any], role: Optional[str] = None) -> List[Dict[str, Any]]:
    """The changes in that role, without those of a union that another member tells."""
    every = [c for page in data["dirty"] for c in page["changes"]]
    return [c for c in every if c["role"] == role and not c["union"]]


def told(data: Dict[str, Any]) -> List[Place]:
    """The program's changes as `notes` has them."""
    return sorted((c["name"], int(c["address"], 16), c["size"]) for c in changes(data))
