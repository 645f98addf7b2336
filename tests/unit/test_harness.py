"""The tests' own limits."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import harness
import pytest
from harness import ROOT, SLOWNESS


def test_a_slow_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 3 * harness._USUAL, 0.0, harness._USUAL / 2))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: None)
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    assert harness._measured() == pytest.approx(3)
    assert harness._measured() == 1


@pytest.mark.timeout(7)
def test_pytests_limits_are_as_much_longer(request: pytest.FixtureRequest) -> None:
    config = request.config
    asked = config.invocation_params.args
    if not any("timeout" in str(argument) for argument in asked):
        assert config.option.timeout == round(SLOWNESS * float(config.getini("timeout")))
    limit = request.node.get_closest_marker("timeout")
    assert limit is not None and limit.args[0] == round(SLOWNESS * 7)


def sets_a_limit(path: Path) -> list[int]:
    """The lines where a test has a limit of its own for a program that it runs."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    runs = [c for c in calls if ast.unparse(c.func).endswith((".communicate", "subprocess.run"))]
    return [
        keyword.value.lineno
        for call in runs
        for keyword in call.keywords
        if keyword.arg == "timeout" and "SLOWNESS" not in ast.unparse(keyword.value)
    ]


def test_no_other_limit_is_fixed() -> None:
    """pytest-timeout ends a test that hangs, wherever; it knows how slow the machine is."""
    folders = ("unit", "gdb", "replay", "native", "lldb", "lib")
    paths = [path for name in folders for path in (ROOT / "tests" / name).rglob("*.py")]
    assert {str(path): lines for path in paths if (lines := sets_a_limit(path))} == {}
