"""The parts of `make matrix` that need neither a network nor an emulator."""

from __future__ import annotations

import gzip
import importlib
import lzma
import sys
from pathlib import Path
from types import ModuleType
from typing import Iterator

import pytest
from harness import ROOT

NAMES = ("packages", "kernels", "checks", "table", "foreign", "guest", "debuggers")


@pytest.fixture(scope="module")
def tools() -> Iterator[ModuleType]:
    """The modules of tools/matrix as attributes."""
    made = ModuleType("tools")
    sys.path.insert(0, str(ROOT / "tools" / "matrix"))
    try:
        for name in NAMES:
            setattr(made, name, importlib.import_module(name))
        yield made
    finally:
        sys.path.remove(str(ROOT / "tools" / "matrix"))
        for name in NAMES:
            sys.modules.pop(name, None)


DEB822 = """Types: deb
# http://snapshot.example/archive
URIs: http://mirror/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/x.gpg

Types: deb deb-src
URIs: http://mirror/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: http://elsewhere
Suites: bookworm
"""


def test_sources_of_both_kinds(tools) -> None:
    first, second = tools.packages._deb822(DEB822)
    assert first.uri == "http://mirror/debian"
    assert first.suites == ("bookworm", "bookworm-updates")
    assert first.options == "[signed-by=/usr/share/keyrings/x.gpg]"
    assert second.suites == ("bookworm-security",) and second.options == ""
    lines = "# deb http://no x main\ndeb [arch=amd64] http://a b main\ndeb-src http://a b main\n"
    (one,) = tools.packages._one_line(lines + "deb http://c\n")
    assert (one.uri, one.suites, one.options) == ("http://a", ("b",), "[arch=amd64]")


def test_suites_beside_the_machine_s_own(tools, monkeypatch) -> None:
    monkeypatch.setattr(
        tools.packages, "machine_sources", lambda: list(tools.packages._deb822(DEB822))
    )
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(tools.packages, "_release", lambda: release)
    text = "\n".join(tools.packages._suite_entries())
    assert "http://mirror/debian trixie-backports main" in text
    assert "http://mirror/debian-security bullseye-security main" in text
    assert "elsewhere" not in text
    own = tools.packages._own_entries()
    assert len(own) == 3 and all("bookworm" in line for line in own)
    release["ID"] = "ubuntu"
    assert tools.packages._suite_entries() == []


class Apt:
    """apt-cache's answers."""

    def __init__(self, *versions: str) -> None:
        self.known = versions

    def versions(self, package: str):
        if package != "linux-image-amd64":
            tail = package[len("linux-image-") :]
            parts = ", ".join(f"linux-{p}-{tail} (= 7)" for p in ("base", "binary", "modules"))
            return [("7", {"Depends": f"dracut | x, {parts}" if "7.3" in package else "kmod"})]
        return [(v, {"Depends": f"linux-image-{v}-amd64 (= {v})"}) for v in self.known]


def test_the_newest_kernel_of_a_series(tools) -> None:
    apt = Apt("7.3.4", "6.12.117", "6.12.95", "6.1.192", "6.10.3")
    choose = tools.kernels._choose
    assert choose(apt, "newest")[1] == "7.3.4"
    assert choose(apt, "6.12")[1] == "6.12.117"
    assert choose(apt, "6.1")[1] == "6.1.192"
    with pytest.raises(tools.packages.Lacking, match="kernel 5"):
        choose(apt, "5.10")


def test_kernels_that_are_split_into_packages(tools) -> None:
    assert tools.kernels._parts(Apt(), "linux-image-6.1-amd64") == ["linux-image-6.1-amd64"]
    assert tools.kernels._parts(Apt(), "linux-image-7.3-amd64") == [
        "linux-base-7.3-amd64", "linux-binary-7.3-amd64", "linux-modules-7.3-amd64",
    ]  # fmt: skip


def test_modules_load_after_what_they_need(tools, tmp_path: Path) -> None:
    tree = tmp_path / "lib/modules/1.2.3/kernel"
    tree.mkdir(parents=True)
    (tree / "9p.ko").write_bytes(b"ELF\0depends=9pnet\0name=9p\0")
    (tree / "9pnet.ko.xz").write_bytes(lzma.compress(b"ELF\0depends=\0name=9pnet\0"))
    (tree / "9pnet_virtio.ko").write_bytes(b"ELF\0depends=9pnet,virtio-ring\0")
    (tree / "virtio_ring.ko").write_bytes(b"ELF\0depends=\0")
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-1.2.3").write_bytes(bytes(0x300))
    kernel = tools.kernels.unpacked(tmp_path)
    assert (kernel.version, kernel.label) == ("1.2.3", "1.2.3")
    names = list(tools.kernels.module_images(kernel))
    assert set(names) >= {"9p", "9pnet", "9pnet_virtio"}
    assert names.index("9pnet") < names.index("9p")
    assert names.index("virtio-ring") < names.index("9pnet_virtio")


def test_the_label_of_a_debian_kernel(tools, tmp_path: Path) -> None:
    image = bytearray(0x1000)
    image[0x20E:0x210] = (0x100).to_bytes(2, "little")
    text = b"5.10.0-46-amd64 (x@y) #1 SMP Debian 5.10.262-1 (2026)\0"
    image[0x300 : 0x300 + len(text)] = text
    (tmp_path / "vmlinuz").write_bytes(image)
    kernel = tools.kernels.Kernel("5.10.0-46-amd64", tmp_path / "vmlinuz", tmp_path)
    assert kernel.label == "5.10.262"


def test_an_archive_as_the_kernel_reads_it(tools, tmp_path: Path) -> None:
    data = tools.guest._cpio({"dir": (0o040755, b""), "dir/f": (0o100644, b"hello")})
    assert len(data) % 4 == 0 and data.startswith(b"070701") and b"TRAILER!!!\0" in data
    at, names = 0, {}
    while True:
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        if name == "TRAILER!!!":
            break
        start = (at + 110 + length + 3) & ~3
        names[name] = data[start : start + size]
        at = (start + size + 3) & ~3
    assert names == {"dir": b"", "dir/f": b"hello"}


JUNIT = """<testsuites><testsuite>
<testcase classname="tests.gdb.test_x" name="a"/>
<testcase classname="tests.gdb.test_x" name="b"><failure message="no">x</failure></testcase>
<testcase classname="tests.gdb.test_x" name="c"><error message="no">x</error></testcase>
<testcase classname="tests.gdb.test_x" name="c"><failure message="no">x</failure></testcase>
<testcase classname="tests.gdb.test_x" name="d"><skipped message="no  AVX&#10;here">x</skipped></testcase>
</testsuite></testsuites>"""  # noqa: E501


def test_results_become_cells(tools, tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    column = (tools.checks.Check("x", ("tests/gdb/test_x.py",)),)

    def read(status: int, text: str = ""):
        if text:
            path.write_text(text)
        return tools.checks.read_junit(path, status, column)["x"]

    result = read(1, JUNIT)
    assert result.cell() == "**FAIL** 2 of 3"
    assert result.failed == ["test_x::b", "test_x::c"] and result.lacking == {"no AVX here": 1}
    lines = JUNIT.splitlines()
    assert read(0, "\n".join([lines[0], lines[1], *lines[5:]])).cell() == "pass 1, 1 lack"
    assert read(2).cell() == "**FAIL** pytest ended with 2"
    assert read(0, "\n".join([lines[0], *lines[5:]])).cell() == "lacks: no AVX here"
    assert "FAIL" in read(5, "<testsuites></testsuites>").cell()  # no test was collected
    assert "FAIL" in read(0).cell()
    assert read(124, "<cut off").cell() == "**FAIL** not done in time"
    path.unlink()
    assert "ended with 139" in read(139).cell()


def test_one_pytest_fills_several_columns(tools, tmp_path: Path) -> None:
    check = tools.checks.Check
    columns = (
        check("a", ("tests/gdb/test_x.py",), ("one", "two")),
        check("b", ("tests/gdb/test_x.py", "tests/unit/test_y.py"), never=("slow",)),
        check("c", ("tests/unit/test_z.py",)),
    )
    assert tools.checks.arguments(columns) == [
        *("tests/gdb/test_x.py", "tests/unit/test_y.py", "tests/unit/test_z.py", "-k"),
        "((test_x.py) and (one or two)) or ((test_x.py or test_y.py) and not (slow))"
        " or ((test_z.py))",
    ]
    cases = [("tests.gdb.test_x", "test_one"), ("tests.unit.test_y", "test_one")]
    cases += [("tests.gdb.test_x", "test_slow"), ("tests.gdb.test_xx", "test_one")]
    told = "".join(f'<testcase classname="{c}" name="{n}"/>' for c, n in cases)
    path = tmp_path / "x.xml"
    path.write_text(f"<testsuite>{told}</testsuite>")
    # The failure that the status tells of lies in another column.
    cells = {n: r.cell() for n, r in tools.checks.read_junit(path, 1, columns[:2]).items()}
    assert cells == {"a": "pass 1", "b": "pass 1"}
    cells = {n: r.cell() for n, r in tools.checks.read_junit(path, 124, columns).items()}
    assert cells["a"] == "pass 1"
    assert cells["b"] == cells["c"] == "**FAIL** not done in time"


def test_every_selected_word_names_a_test(tools) -> None:
    for check in (*tools.checks.ON_KERNELS, *tools.checks.ON_KERNELS_GDB, *tools.checks.ON_GDBS):
        texts = "".join((ROOT / file).read_text() for file in check.files)
        for word in (*check.only, *check.never):
            assert word in texts, f"{check.name}: {word}"


def test_the_table(tools) -> None:
    result, row = tools.checks.Result, tools.table.Row
    rows = [
        row("kernel", "6.12.1, emulated", {"native": result("pass", 2)}),
        row("kernel", "6.1.9, emulated", {
            "native": result("FAIL", 1, ["test_n::x"], {"no | here": 2}),
            "call": result("lacks", note="no <mirror>"),
        }),
        row("gdb", "gdb 16.3", {"all": result("pass", 9)}, {"from": "PyPI", "Python": "3.11"}),
        row("bench", "engines", {}, {"text": "figures"}),
    ]  # fmt: skip
    text = tools.table.render([tools.table.Row.load(_plain(r)) for r in rows])
    assert "| 6.12.1, emulated | pass 2 |  |" in text
    assert text.index("6.1.9") < text.index("6.12.1")  # by version
    assert "| 6.1.9, emulated | **FAIL** 1 of 2 | lacks: no &lt;mirror> |" in text
    assert "- 6.1.9, emulated: **failed** native: `test_n::x`" in text
    assert "- 6.1.9, emulated lacks: no \\| here (2 times)" in text
    assert "| gdb 16.3 | PyPI | 3.11 | pass 9 |" in text
    assert "## lldb" not in text and "```\nfigures\n```" in text


def _plain(row: object) -> dict[str, object]:
    """As it is kept between runs."""
    import dataclasses
    import json

    return json.loads(json.dumps(dataclasses.asdict(row)))


def test_the_first_file_system_holds_the_command_s_runner(tools, tmp_path: Path) -> None:
    modules = tmp_path / "k/lib/modules/1.2.3"
    modules.mkdir(parents=True)
    (tmp_path / "busybox").write_bytes(b"busybox")
    kernel = tools.kernels.Kernel("1.2.3", tmp_path / "vmlinuz", modules)
    made = tools.guest.initramfs(kernel, tmp_path / "busybox", tmp_path)
    image = gzip.decompress(made.read_bytes())
    assert b"init\0" in image and b"GUEST-STATUS" in image and b"busybox" in image
    assert tools.guest.initramfs(kernel, tmp_path / "busybox", tmp_path) == made


def test_sources_of_another_architecture(tools) -> None:
    of = tools.packages._of
    assert of("deb [signed-by=/k] http://m a main", "arm64") == (
        "deb [arch=arm64 signed-by=/k] http://m a main"
    )
    assert of("deb [arch=amd64] http://m a main", "arm64") == "deb [arch=arm64] http://m a main"
    assert of("deb  http://m a main", "arm64") == "deb [arch=arm64] http://m a main"


def test_a_kernel_image_of_another_processor(tools, tmp_path) -> None:
    """The magic of arm64/booting.rst, and the banner of an uncompressed image."""
    image = tmp_path / "vmlinuz-6.1.0-56-arm64"
    banner = b"Linux version 6.1.0-56-arm64 (x) #1 SMP Debian 6.1.192-2 (2026-11-16)"
    image.write_bytes(bytes(0x38) + b"ARM\x64" + bytes(100) + banner)
    (tmp_path / "lib/modules/6.1.0-56-arm64").mkdir(parents=True)
    kernel = tools.kernels.unpacked(tmp_path)
    assert kernel.is_arm and kernel.label == "6.1.192"


def test_cached_kernels_of_two_processors(tools, tmp_path) -> None:
    for name in ("6.1.0-1-amd64", "6.1.0-2-arm64"):
        folder = tmp_path / "kernels" / name
        (folder / "lib/modules" / name).mkdir(parents=True)
        (folder / f"vmlinuz-{name}").write_bytes(b"")
    assert tools.kernels.cached(tmp_path, "6.1").version == "6.1.0-1-amd64"
    assert tools.kernels.cached(tmp_path, "6.1", "arm64").version == "6.1.0-2-arm64"
    with pytest.raises(tools.packages.Lacking):
        tools.kernels.cached(tmp_path, "6.12", "arm64")


def test_the_table_of_another_processor(tools) -> None:
    cells = {"native": tools.checks.Result("pass", 1)}
    text = tools.table.render([tools.table.Row("aarch64", "6.1.192, emulated", cells)])
    assert "## AArch64" in text and "| 6.1.192, emulated | pass 1 |" in text
    named = [check.name for check in tools.checks.ON_AARCH64]
    assert len(set(named)) == len(named)
    files = {file for check in tools.checks.ON_AARCH64 for file in check.files}
    assert all((ROOT / file).exists() for file in files)
