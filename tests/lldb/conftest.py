"""lldb on a served core; skipped, with the reason, where there is no lldb."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from harness import lldbs, survivors


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lldb_path" in metafunc.fixturenames:
        found = lldbs.present()
        none = pytest.param("", marks=pytest.mark.skip("no lldb here: `make matrix` fetches some"))
        metafunc.parametrize(
            "lldb_path", found or [none], ids=[lldbs.label(p) for p in found] or ["none"]
        )


@pytest.fixture(autouse=True)
def no_survivors() -> Iterator[None]:
    yield
    left = survivors.remaining(seconds=10)
    assert not left, "left running: " + "; ".join(left)


@pytest.fixture
def lldb(lldb_path: str, all_cores, built: Path, tmp_path: Path) -> Iterator[lldbs.Lldb]:
    """An lldb connected to the sample's kernel core."""
    server = lldbs.Server([str(all_cores.sample()), "--socket", str(tmp_path / "s")])
    try:
        where = f"unix-connect://{server.where}"
        session = lldbs.Lldb(lldb_path, tmp_path, str(built / "sample"), where)
        yield session
        session.quit()
    finally:
        server.stop()
