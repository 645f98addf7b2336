"""Cores that were made elsewhere, by another kernel or on another CPU.

GDB_UFFD_TEST_TRAVELLED names a folder with such cores (see harness.travel); `make matrix` takes
them from one kernel to another.  Without it the cores are this machine's own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict

import pytest
from harness import cores, travel

pytestmark = pytest.mark.shared_gdb

TRAVELLED = os.environ.get("GDB_UFFD_TEST_TRAVELLED", "")
WIDE = "AVX-512, which this machine's CPU does not have"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Dict[str, str]:
    """What there is, by program: the path of its core."""
    folder = Path(TRAVELLED) if TRAVELLED else tmp_path_factory.mktemp("travel")
    try:
        told = json.loads((folder / travel.MADE).read_text()) if TRAVELLED else travel.make(folder)
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")
    return {**told, **{n: str(folder / told[n]) for n in ("sample", "zoo", "vector")}}


def test_it_comes_from_elsewhere(made):
    if not TRAVELLED:
        pytest.skip("these are this machine's own")
    assert made["kernel"] != os.uname().release


def test_a_program_with_threads(opened, made):
    gdb = opened(Path(made["sample"]))
    spawned = gdb.spawned
    assert "lookup (value=99)" in spawned and "unavailable" not in spawned, spawned
    assert gdb.run("thread apply all backtrace").count("worker (") == 2
    report = gdb.call("push(7)")
    assert report["value"] == "1042" and not report["kept"]
    names = {c["name"] for page in report["dirty"] for c in page["changes"]}
    assert {"counter", "head", "tls_hits"} <= names, names
    assert gdb.value("counter") == "1041"


def test_the_clock_goes_through_the_recorded_vdso(opened, made):
    """Its data page is of the kernel that made the core; here it is not even mapped."""
    gdb = opened(Path(made["zoo"]))
    assert int(gdb.value("(long)time(0)")) > 1_600_000_000
    assert "mapped" not in gdb.run("print (int)getpid()")


def test_values_calls_and_libraries(opened, made):
    gdb = opened(Path(made["zoo"]))
    before = int(gdb.value("lib_tls"))
    text = gdb.run("print bump_tls()")
    lacks = "needs XSAVEC" in text and not travel.cpu_has("xsavec")
    if not lacks:
        assert int(gdb.value("lib_tls")) == before + 1, text
    gdb.run("uffd reset")
    assert int(gdb.value("lib_tls")) == before
    if lacks:  # the recorded linker chose it for binding functions at their first call
        pytest.skip("this CPU has no XSAVEC, and the call said so: it was not made")


def test_vector_registers(opened, made):
    """Those that this CPU lacks are shown as recorded, before and after something ran."""
    gdb = opened(Path(made["vector"]))
    wide = made["vector_kind"] == "avx512"
    name = "zmm31.v8_int64[7]" if wide else "ymm15.v4_int64[3]"
    expected = hex(0x1111111111111111 * (8 if wide else 4) + (31 if wide else 15))
    assert gdb.value(f"/x ${name}") == expected
    assert gdb.value("narrow(41)") == "42"
    assert gdb.value(f"/x ${name}") == expected


def test_a_call_that_needs_what_this_cpu_lacks_says_so(opened, made):
    gdb = opened(Path(made["vector"]))
    text = gdb.run("print wide(41)")
    if travel.cpu_has("avx512f"):
        assert "= 42" in text, text
    else:
        assert WIDE in " ".join(text.split()) and "SIGILL" in text, text
