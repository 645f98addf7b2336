"""Somebody is killed or stopped at a random instant of a scene (scenes.py), and the rest is looked
over.

`python kills.py` reads lines `kills SEED` and prints a line of JSON for each.  Who is struck, by
what, and when follows from the seed; when is a share of how long a step takes, or the N-th time
that a point (points.py) is passed, both as measured in a session that nobody disturbed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import inputs
import looks
import pexpect
import scenes
from harness import ROOT, SLOWNESS, gdbs, programs, survivors
from looks import Fault
from scenes import INT, KILL, STOP, Scene, Step

BOUND_S = 40.0
"""How long a prompt may take."""
LEFT_S = 10.0
"""How long anything may outlive gdb."""
POINTS = Path(__file__).with_name("points.py")
PROMPT = "(gdb) "
PROBE = re.compile(r"[a-z0-9_]{8}")
"""What Python makes and removes at once to see whether a folder can be written (tempfile.py)."""


@functools.cache
def target() -> Path:
    """The program that is recorded."""
    return programs.build() / "target"


class Plan:
    """Who is struck, by what, and when."""

    def __init__(self, scene: Scene, measured: "Measured", chance: random.Random) -> None:
        self.victim = chance.choice(list(scene.victims))
        self.signal = chance.choice(scene.victims[self.victim])
        self.pause_s = chance.choice([0.0, 0.01, 0.1, 0.4])
        self.step, self.delay_s = -1, 0.0
        self.point: Tuple[str, str, int] = ("", "", 0)
        passed = [(m, p) for m, p in scene.points if measured.points.get((m, p))]
        if passed and chance.random() < 0.5:
            module, point = chance.choice(passed)
            self.point = (module, point, chance.randint(1, measured.points[module, point]))
            self.delay_s = chance.choice([0.0, 0.0, chance.random() * 0.003])
        else:
            self.step = chance.randrange(len(measured.steps))
            self.delay_s = chance.random() * measured.steps[self.step] * 1.1

    def __str__(self) -> str:
        where = f"at {self.point}" if self.step < 0 else f"in step {self.step}"
        return f"{self.signal} to the {self.victim} {where}, {self.delay_s * 1000:.2f} ms"


class Measured:
    """How long each step takes, and how often each point is passed."""

    def __init__(self, steps: List[float], points: Dict[Tuple[str, str], int]) -> None:
        self.steps, self.points = steps, points


class Striker:
    """Does it, once."""

    def __init__(self, plan: Plan, find: Any, socket_path: Path) -> None:
        self.plan, self._find = plan, find
        self.struck = ""  # what was done
        self.done = threading.Event()
        self._listener: Optional[socket.socket] = None
        self._threads: List[threading.Thread] = []
        if plan.step < 0:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(socket_path))
            self._listener.listen(1)
            self._start(self._wait_for_point)

    def _start(self, work: Any) -> None:
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def begins(self, step: int) -> None:
        """That step is typed now."""
        if step == self.plan.step:
            self._start(self._strike)

    def _wait_for_point(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            with client:
                client.recv(200)
                self._strike()
                client.sendall(b".")

    def _strike(self) -> None:
        time.sleep(self.plan.delay_s)
        pids = self._find(self.plan.victim)
        for pid in pids[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, self.plan.signal))
                self.struck = f"{self.plan.signal} to {self.plan.victim} {pid}"
                if self.plan.signal == STOP:
                    time.sleep(self.plan.pause_s)
                    os.kill(pid, signal.SIGCONT)
        self.done.set()

    def end(self) -> None:
        """Nothing is struck any more."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for thread in self._threads:
            thread.join()


class Gdb:
    """gdb in a terminal, whose prompt may come more often than it was asked for."""

    def __init__(self, path: str, env: Dict[str, str], folder: Path) -> None:
        command = ["-nx", "-q", "-iex", "set confirm off", "-iex", "set debuginfod enabled off"]
        command += ["-iex", "set pagination off", "-iex", "set width 0"]
        self.path, self.said, self._marks = path, "", 0
        self.child = pexpect.spawn(
            path, [*command, "-x", str(ROOT / "gdbinit.example")],
            env=env, cwd=str(folder), encoding="utf-8", codec_errors="replace",
            timeout=BOUND_S * SLOWNESS, dimensions=(24, 200),
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )  # fmt: skip
        self.child.delaybeforesend = None
        self.child.ptyproc.delayafterclose = 0
        self.child.delayafterclose = 0
        self._expect(re.escape(PROMPT))

    def _expect(self, pattern: str, bound_s: float = BOUND_S) -> str:
        """What came until then; EOFError when gdb has gone, Fault after `bound_s`."""
        try:
            self.child.expect(pattern, timeout=bound_s * SLOWNESS)
        except pexpect.EOF:
            self.said += str(self.child.before)
            raise EOFError from None
        except pexpect.TIMEOUT:
            raise Fault(f"no prompt in {bound_s:.0f} s; gdb said: {self.child.before!r}") from None
        text = str(self.child.before) + str(self.child.after)
        self.said += text
        return text

    def run(self, command: str, interrupt_s: float = 0.0) -> str:
        """All that it says to it."""
        self._send(command)
        text = ""
        if interrupt_s:
            try:
                self.child.expect(re.escape(PROMPT), timeout=interrupt_s)
                text = str(self.child.before)
            except pexpect.TIMEOUT:
                self.child.sendintr()
            except pexpect.EOF:
                raise EOFError from None
        if not text:
            text = self._expect(re.escape(PROMPT))
        return text + self.sync(interrupts=bool(interrupt_s))

    def sync(self, interrupts: bool = False) -> str:
        """What it says until it answers to this; a Ctrl-C may have taken a line away.

        `interrupts`: the command before only ends by Ctrl-C, and the prompt may have been an
        earlier one's."""
        self._marks += 1
        mark, text = f"=@{self._marks}=", ""
        for bound_s in (3.0, 3.0, BOUND_S):
            if interrupts and bound_s == BOUND_S:
                self.child.sendintr()
            self._send(f"echo =\\100{self._marks}=\\n")
            try:
                text += self._expect(re.escape(mark), bound_s)
                self._expect(re.escape(PROMPT))
                return text
            except Fault:
                if bound_s == BOUND_S:
                    raise
        return text

    def _send(self, line: str) -> None:
        try:
            self.child.sendline(line)
        except OSError:
            raise EOFError from None

    def leave(self) -> None:
        """`quit`."""
        with contextlib.suppress(EOFError):
            self._send("quit")
            self._expect("nothing comes after it")

    def end(self) -> None:
        """It has ended, or does now."""
        if self.child.isalive():
            self.child.kill(signal.SIGKILL)
            self.child.wait()
        self.child.close(force=True)


class Trial:
    """One scene, disturbed or (`plan` None) not."""

    def __init__(self, scene: Scene, gdb: str, plan: Optional[Plan], made: inputs.Inputs) -> None:
        self.scene, self.plan = scene, plan
        self.folder = Path(tempfile.mkdtemp(prefix="uffd-k-", dir="/tmp"))
        self.tmp, self.out = self.folder / "tmp", self.folder / "out"
        self.counts = self.folder / "counts"
        for folder in (self.tmp, self.out, self.counts, self.folder / "work"):
            folder.mkdir()
        self.steps: List[float] = []
        self.notes: List[str] = []
        self.program: Optional[subprocess.Popen[str]] = None
        self.shell: Optional[subprocess.Popen[str]] = None
        self.gdb: Optional[Gdb] = None
        self.gdb_path = gdb
        names = {path.name: path for path in [*made.cores, *made.traces, *made.packed]}
        self.names = {
            "sample": names["sample"], "zoo": names["zoo"], "trace": names["sample.uffd"],
            "packed": names["core.uffd.zst"], "target": target(), "said": self.folder / "said",
            "out": self.out / "made", "pid": 0,
        }  # fmt: skip
        wrapper = self.folder / "python"
        wrapper.write_text(
            f'#!/bin/sh\nexec {sys.executable} -I {POINTS} {self.folder}/plan "$@"\n'
        )
        wrapper.chmod(0o755)
        module, point, nth = plan.point if plan is not None else ("", "", 0)
        counts = str(self.counts) if plan is None else ""
        facts = {"module": module, "point": point, "nth": nth, "counts": counts}
        facts["socket"] = str(self.folder / "s")
        (self.folder / "plan").write_text(json.dumps(facts))
        (self.folder / "pending").touch()
        self.env = {**gdbs.environment(self.folder / "home"), "TMPDIR": str(self.tmp)}
        self.env |= {"GDB_UFFD_PYTHON": str(wrapper), "GDB_UFFD_GDB": gdb}
        self.striker = Striker(plan, self.find, self.folder / "s") if plan is not None else None

    def find(self, victim: str) -> List[int]:
        """Its processes."""
        if victim == "target":
            if self.program is not None:
                return [self.program.pid]
            return [p for p in survivors._descendants(os.getpid()) if looks.runs(p, target())]
        if victim == "shell":
            return [self.shell.pid] if self.shell is not None else []
        if victim == "gdb":
            if self.gdb is not None:
                return [self.gdb.child.pid]
            found = survivors._descendants(os.getpid())
            return [p for p in found if looks.name(p) == "gdb"][:1]
        ours = survivors.ours()
        if victim == "vessel":
            return [p for p in ours if survivors._is_vessel(p)]
        if victim == "holder":
            return [p for p in ours if survivors._holds(p)]
        module = b"gdb_uffd.recorder" if victim == "recorder" else b"gdb_uffd.server"
        return [p for p in ours if module in looks.arguments(p) and not survivors._holds(p)]

    @property
    def struck(self) -> str:
        return self.striker.struck if self.striker is not None else ""

    def hit(self, *victims: str) -> bool:
        """Whether one of these was struck by what ends it."""
        assert self.plan is not None
        return bool(self.struck) and self.plan.victim in victims and self.plan.signal != STOP

    def run(self) -> None:
        """All of it; Fault."""
        try:
            if self.scene.kind == "shell":
                self.run_shell()
            else:
                self.run_gdb()
            if self.striker is not None:
                self.striker.end()
            self.look()
        finally:
            self.end()

    # In gdb.

    def run_gdb(self) -> None:
        if self.scene.kind == "attached":
            self.program = subprocess.Popen(
                [target()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            looks.answer(self.program)
            self.names["pid"] = self.program.pid
        self.gdb = Gdb(self.gdb_path, self.env, self.folder / "work")
        try:
            for number, step in enumerate(self.scene.steps):
                self.take(number, step)
            if self.striker is not None:
                self.striker.done.wait(0.5)
                (self.folder / "pending").unlink(missing_ok=True)
                self.striker.end()
            self.usable(self.gdb)
            self.gdb.leave()
        except EOFError:
            self.ended()

    def take(self, number: int, step: Step) -> None:
        assert self.gdb is not None
        if self.striker is not None:
            self.striker.begins(number)
        began = time.monotonic()
        text = self.gdb.run(step.command.format(**self.names), step.interrupt_s)
        self.steps.append(time.monotonic() - began)
        looks.spoken(text)
        # Whoever was only stopped for a while, and whoever ignores the signal, changes nothing.
        calm = not self.struck or self.ignored()
        if calm and not scenes.expected(step, text):
            if self.struck == "" and self.striker is not None and not self.striker.done.is_set():
                self.striker.end()  # it may be under way
                if self.struck and not self.ignored():
                    return
            raise Fault(f"{step.command}: {step.says!r} is not in {text!r}")

    def ignored(self) -> bool:
        assert self.plan is not None
        if self.plan.victim in ("server", "recorder") and self.plan.signal == INT:
            starts = ("uffd spawn", "uffd record start")  # while Python starts it is ended
            step = self.plan.step
            since = self.scene.steps[step : len(self.steps)] if step >= 0 else ()
            return not any(each.command.startswith(starts) for each in since)
        if self.plan.victim in ("server", "recorder") and self.plan.signal == STOP:
            return True
        return self.plan.victim in ("gdb", "holder") and self.plan.signal in (STOP,)

    def ended(self) -> None:
        """gdb has gone, though nobody told it to."""
        assert self.gdb is not None
        if self.scene.name == "quit" or self.hit("gdb"):
            return
        if self.hit("target") and "prepare_for_detach" in self.gdb.said:
            return  # gdb 18.1's own: `detach` from a process that was killed
        if self.hit("target") and "mark_lwp_dead: Assertion" in self.gdb.said:
            return  # gdb 18.1's own: `attach` to a process that is being killed (27 of 80)
        _, _, last = self.gdb.said.rpartition("(gdb) detach")
        crashed = "Fatal signal: Segmentation fault" in last
        old = gdbs.version(self.gdb_path)[0] == 13
        if crashed and old and self.hit("target") and self.scene.breakpoints:
            return  # gdb 13.1's own: the same, where the threads were hitting a breakpoint
        raise Fault(f"gdb went: {self.gdb.said[-1500:]}")

    def usable(self, gdb: Gdb) -> None:
        """The prompt answers, and the next call is right."""
        text = gdb.run("print 6 * 7")
        if self.struck and "the server ended" in text:  # told in the place of its value, once
            text = gdb.run("print 6 * 7")
        if self.struck and self.hit("target") and "Couldn't get registers: No such process" in text:
            return  # gdb 13.1's own: a program that was killed while `run` started it (13 of 60)
        if "= 42" not in text:
            raise Fault(f"print 6 * 7: {text!r}")
        if self.scene.kind != "core":
            return
        core = self.names["sample"]
        ways: List[List[str]] = [[], ["uffd reset"], ["uffd kill", f"uffd spawn {core}"]]
        first = 0 if not self.struck else 2 if self.hit("server") else 1
        for before in ways[first:]:
            for command in before:
                looks.spoken(gdb.run(command))
            text = gdb.run("uffd call push(7)")
            looks.spoken(text)
            lost = "no core is spawned" in text or self.scene.name in OTHERS
            right = "= 1042" in text or (len(before) == 1 and lost)
            if not right and (before or self.scene.name in ("look", "call", "why")):
                raise Fault(f"uffd call push(7) after {before}: {text!r}")

    # In a shell.

    def run_shell(self) -> None:
        began = time.monotonic()
        if self.striker is not None:
            self.striker.begins(0)
        status, told = self.shell_command()
        self.steps.append(time.monotonic() - began)
        if self.striker is not None:
            self.striker.end()
        records = self.scene.command[0] == "record"
        calm = not self.struck or self.struck_in_vain(records)
        # Nothing ran yet.
        early = records and "the recorder has died" in told and status == 1
        # Python without a handler yet, or without one of ours.
        interrupted = not told.strip() or told.rstrip().endswith("KeyboardInterrupt")
        early |= status == -signal.SIGINT and interrupted
        if calm and status != (3 if records else 0) and not early:
            raise Fault(f"gdb-uffd {self.scene.command[0]} ended by {status}: {told}")
        self.notes.append(told)
        if not records and self.struck and self.plan is not None and self.plan.signal == KILL:
            self.again()

    def again(self) -> None:
        """What was killed is done once more: that removes what it left behind."""
        looks.packed(self.out, [path.name for path in self.out.glob("made*")])
        for path in self.out.glob("made*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        status, told = self.shell_command()
        if status:
            raise Fault(f"gdb-uffd {self.scene.command[0]} again: {status}: {told}")

    def shell_command(self) -> Tuple[int, str]:
        """Run it; its status, and what it said on standard error."""
        command = [word.format(**self.names) for word in self.scene.command]
        with open(self.folder / "said", "w+") as said, open(self.folder / "err", "w+") as err:
            self.shell = subprocess.Popen(
                [self.folder / "python", "-I", "-m", "gdb_uffd.cli", *command],
                env=self.env, stdin=subprocess.DEVNULL, stdout=said, stderr=err,
                cwd=self.folder / "work", text=True, preexec_fn=_signals_as_usual,
            )  # fmt: skip
            try:
                status = self.shell.wait(BOUND_S * SLOWNESS)
            except subprocess.TimeoutExpired:
                raise Fault(f"gdb-uffd {command[0]} did not end") from None
        told = (self.folder / "err").read_text(errors="replace")
        looks.spoken(told)
        return status, told

    def struck_in_vain(self, records: bool) -> bool:
        """Whether the command's status is as ever: a program's that is recorded, when only the
        recorder has gone, or when Ctrl-C was for the program."""
        assert self.plan is not None
        if self.plan.signal == STOP:
            return self.plan.victim != "target"
        return records and (self.plan.victim == "recorder" or self.plan.signal == INT)

    # What is left.

    def look(self) -> None:
        left = survivors.remaining(LEFT_S)
        if left:
            raise Fault(f"left running: {left}")
        if self.program is not None:
            self.look_at_program(self.program)
        for pid in self.find("target"):
            if self.program is None:
                raise Fault(f"the program runs on: {survivors.describe(pid)}")
        self.look_at_files()
        scratch = [path.name for path in self.tmp.iterdir() if not PROBE.fullmatch(path.name)]
        # A minute long nobody knows whether such a one is about to be locked (trace/scratch.py).
        scratch = [n for n in scratch if "~" not in n or any((self.tmp / n).iterdir())]
        if scratch:
            raise Fault(f"left in TMPDIR: {scratch}")

    def look_at_program(self, program: "subprocess.Popen[str]") -> None:
        assert self.plan is not None or not self.struck
        may_end = self.struck and (
            self.hit("target") or (self.hit("gdb") and self.scene.breakpoints)
        )  # a breakpoint that gdb leaves in the program when it is killed is gdb's own
        if self.struck and self.plan is not None and self.plan.victim == "target":
            with contextlib.suppress(ProcessLookupError):
                os.kill(program.pid, signal.SIGCONT)  # gdb passes SIGSTOP on when it detaches
        if self.gdb is not None and self.gdbs_own_stop(self.gdb):
            self.gdb.end()
            with contextlib.suppress(ProcessLookupError):
                os.kill(program.pid, signal.SIGCONT)
        if self.plan is not None and self.hit("gdb") and not (self.out / "made.uffd").exists():
            return  # it was attaching: nothing of ours was there yet
        if self.struck and self.plan is not None and self.hit("gdb") and self.plan.signal == INT:
            # A second Ctrl-C waits in the program that the first has stopped, and comes when gdb
            # detaches: gdb's own (9 of 40).
            with contextlib.suppress(subprocess.TimeoutExpired):
                interrupts = any(step.interrupt_s for step in self.scene.steps)
                if interrupts and program.wait(0.3) == -signal.SIGINT:
                    return
        looks.alive(program, target(), may_end=bool(may_end))

    def gdbs_own_stop(self, gdb: Gdb) -> bool:
        """Whether gdb may have left a SIGSTOP of its own in the program: it stops threads by that;
        where one hits a breakpoint first, it waits in the kernel until the thread is resumed, and
        comes when gdb is killed.  Until the recording ends, the recorder sees to it."""
        killed = self.plan is not None and self.hit("gdb") and self.plan.signal == KILL
        return killed and self.scene.breakpoints and "uffd record stop" in gdb.said

    def look_at_files(self) -> None:
        made = sorted(path.name for path in self.out.iterdir())
        if self.scene.name in ("export", "gdb-uffd export"):
            looks.exported(self.out, made, self.counters())
        elif self.scene.kind in ("attached", "launched") or self.scene.command[:1] == ("record",):
            text = self.gdb.said if self.gdb is not None else "".join(self.notes)
            looks.recorded(self.out / "made.uffd", text)
            if set(made) - {"made.uffd"}:
                raise Fault(f"made: {made}")
        elif self.scene.kind == "shell":
            looks.packed(self.out, made)
        elif made:
            raise Fault(f"made: {made}")

    def counters(self) -> List[int]:
        """What the exported core's counter may be: a call that was interrupted may have counted."""
        if self.gdb is None:
            return [1041]
        before = self.gdb.said.partition("uffd export")[0]
        return [1042] if "= 1042" in before else [1041, 1042]

    def end(self) -> None:
        """Whatever happened, nothing goes on."""
        if self.striker is not None:
            self.striker.end()
        if self.gdb is not None:
            self.gdb.end()
        for process in (self.program, self.shell):
            if process is not None:
                process.kill()
                process.communicate()
        for pid in [*self.find("target"), *survivors.ours()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def passed(self) -> Dict[Tuple[str, str], int]:
        """How often each point was."""
        found: Dict[Tuple[str, str], int] = {}
        for path in self.counts.iterdir():
            module = path.name.rpartition(".")[0]
            for point, count in json.loads(path.read_text() or "{}").items():
                found[module, point] = max(count, found.get((module, point), 0))
        return found


OTHERS = ("faults", "travel")
"""Scenes in which push(7) gives something else, or is not there."""


def _signals_as_usual() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)


class Kills:
    """Trials by number; scenes are measured once for each gdb."""

    def __init__(self) -> None:
        self.made = inputs.make()
        self._measured: Dict[Tuple[str, str], Measured] = {}

    def measured(self, scene: Scene, gdb: str) -> Measured:
        """From an undisturbed run; Fault when it fails."""
        if (scene.name, gdb) not in self._measured:
            trial = Trial(scene, gdb, None, self.made)
            try:
                trial.run()
                self._measured[scene.name, gdb] = Measured(trial.steps, trial.passed())
            except Fault as fault:
                said = trial.gdb.said[-4000:] if trial.gdb is not None else ""
                raise Fault(f"undisturbed: {fault}\n{said}") from None
            finally:
                shutil.rmtree(trial.folder, ignore_errors=True)
        return self._measured[scene.name, gdb]

    def run(self, seed: int) -> Dict[str, Any]:
        """One trial."""
        chance = random.Random(f"kills {seed}")
        scene, gdb = chance.choice(scenes.SCENES), chance.choice(gdbs.present())
        told: Dict[str, Any] = {"kind": "kills", "seed": seed, "fault": "", "log": "", "victim": ""}
        began = time.monotonic()
        trial = None
        try:
            plan = Plan(scene, self.measured(scene, gdb), chance)
            trial = Trial(scene, gdb, plan, self.made)
            told["plan"] = f"{scene.name}: {plan}, gdb {gdbs.label(gdb)}"
            trial.run()
        except Exception as error:
            fault = str(error) if isinstance(error, Fault) else traceback.format_exc()
            told["fault"] = f"{told.get('plan', scene.name)}: {fault}"
        finally:
            if trial is not None:
                told["victim"] = trial.plan.victim if trial.struck and trial.plan else ""
                told["signal"] = trial.plan.signal if trial.plan else ""
                if told["fault"] and trial.gdb is not None:
                    told["log"] = trial.gdb.said[-4000:]
                for path in sorted(trial.folder.glob("err")) if told["fault"] else []:
                    told["log"] += path.read_text(errors="replace")[-2000:]
                shutil.rmtree(trial.folder, ignore_errors=True)
        reap()
        return {**told, "seconds": round(time.monotonic() - began, 3)}


def reap() -> None:
    """Orphans that came to this process and have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> int:
    """Trials as they are asked for."""
    survivors.become_subreaper()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kills = Kills()
    for line in sys.stdin:
        print(json.dumps(kills.run(int(line.split()[1]))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
