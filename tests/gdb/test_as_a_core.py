"""What gdb tells of a core by itself is the same here."""

from __future__ import annotations

import subprocess


def test_what_core_file_tells(start_gdb, all_cores, tmp_path):
    core = all_cores.heaps("fibers", "fiber", "two")
    stock = start_gdb(init=None)
    shown = stock.run(f"core-file {core}")
    signal = stock.value("$_exitsignal")
    line = next(line for line in shown.splitlines() if line.startswith("Core was generated"))
    gdb = start_gdb()
    assert line.rstrip() in gdb.run(f"uffd spawn {core}")
    assert gdb.value("$_exitsignal") == signal
    assert "/fibers fiber two'" in gdb.run("info proc cmdline")
    gdb.run("python thread = gdb.selected_thread()")
    handle = gdb.run("python print(int.from_bytes(thread.handle(), 'little'))")
    assert int(handle) == int(gdb.value("(unsigned long) $fs_base"))
    again = tmp_path / "again"
    gdb.run(f"gcore {again}")
    notes = subprocess.run(
        ["readelf", "-n", str(again)], capture_output=True, text=True, check=True
    )
    assert "NT_FILE" in notes.stdout
    gdb.run(f"uffd spawn {again}")
    assert gdb.call("push(7)")["value"] == "7"
