"""Ctrl-C while a handler of ours runs, where gdb would print it and go on."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.every_gdb

SETUP = """\
python
import os, signal
from gdb_uffd.client.session.sessions import Session
wanted, request = ["", 0], Session.request
def ask(self, asked):
    came = asked.NAME == wanted[0]
    if came:
        wanted[0] = ""
    if came and not wanted[1]:
        os.kill(os.getpid(), signal.SIGINT)
    answer = request(self, asked)
    if came and wanted[1]:
        os.kill(os.getpid(), signal.SIGINT)
    return answer
Session.request = ask
end
"""

LOOP = """\
while 1
  print half(1.0)
end
"""


def test_it_is_kept_for_what_runs_next(zoo, tmp_path):
    script, loop = tmp_path / "setup.gdb", tmp_path / "loop.gdb"
    script.write_text(SETUP)
    loop.write_text(LOOP)
    zoo.run(f"source {script}")
    for late in (0, 1):  # before the server knows of it, and when it has answered
        zoo.run(f"python wanted[:] = ['call-begin', {late}]")
        text = zoo.run("uffd call forever()")
        assert "did not return: interrupted" in text and "discarded" in text, text
        zoo.run(f"python wanted[:] = ['call-begin', {late}]")
        text = zoo.run("print forever()")
        assert "SIGINT" in text and "Traceback" not in text, text
        zoo.run("uffd reset")
        zoo.run(f"python wanted[:] = ['call-end', {late}]")
        assert zoo.run(f"source {loop}").count(" = 0.5") < 3
        zoo.run("uffd reset")
    assert zoo.call("half(3.0)")["value"] == "1.5"
    assert zoo.run("print half(3.0)").startswith("$")
