"""Programs that nobody here wrote (`make test-extras`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import CACHE


def extra(name: str) -> Path:
    """The folder of that program; the test is skipped, with the reason, where there is none."""
    if not (CACHE / name).is_dir():
        reason = CACHE / f"{name}.skipped"
        why = reason.read_text().strip() if reason.exists() else "run `make test-extras`"
        pytest.skip(f"no {name}: {why}")
    return CACHE / name
