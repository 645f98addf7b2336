"""After each test of this folder no server and no vessel may be left."""

from __future__ import annotations

from typing import Iterator

import pytest
from harness import survivors


@pytest.fixture(autouse=True)
def no_survivors() -> Iterator[None]:
    """Set up first, so torn down last: after the gdb of the test has been ended."""
    yield
    left = survivors.remaining(seconds=10)
    assert not left, "left running: " + "; ".join(left)
