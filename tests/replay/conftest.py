"""Diversions of a real core, driven without gdb."""

from __future__ import annotations

import pytest
from harness.calls import Caller, kernel_core_path


@pytest.fixture(scope="session")
def kernel_core(tmp_path_factory):
    return kernel_core_path(tmp_path_factory.mktemp("kernel"))


@pytest.fixture
def caller(kernel_core):
    made = Caller(kernel_core)
    yield made
    made.close()
