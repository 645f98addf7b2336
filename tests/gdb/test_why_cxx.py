"""`uffd why` in C++: elements of containers, bases, empty classes, with libstdc++'s printers."""

from __future__ import annotations

import pytest
from harness.noted import changes


@pytest.mark.parametrize("call, value", [("elements(44)", "44"), ("bases(77)", "77")])
def test_every_name_that_the_call_told(containers, call, value):
    for change in changes(containers.call(call)):
        name = change["name"]
        data = containers.json(f"uffd why -json {name}")
        after = data["writes"][-1]["changes"][-1]["after"]
        assert after.split()[0] == value, (name, data["writes"])
        assert data["writes"][-1]["backtrace"][-1]["function"] == call.partition("(")[0]
        assert int(data["address"], 16) == int(change["address"], 16), name


def test_what_a_printer_would_show_is_told_by_its_members(containers):
    containers.run("uffd call inserts(5)")
    for name in ("primes", "title", "chain", "derived"):
        for write in containers.json(f"uffd why -json {name}")["writes"]:
            for change in write["changes"]:
                assert change["name"].startswith(f"{name}."), change
                assert "No data fields" not in change["before"]
                assert len(write["changes"]) == 1 or change["before"] != change["after"]
