"""Kills at random instants, and damaged inputs under the sanitizers, for as long as asked.

`make torture TORTURE_ARGS="--minutes 60"`; `--only kills` (or cores, traces, packed, packets; may
be given again) takes some of it, `--seed N --count 1` one trial again.  Kills run beside the rest.
The last lines tell how many trials there were, with which seeds, and the faults; those are kept in
.cache/torture/faults.  Status 1 when there was any.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Counter, Dict, List

import sanitized

HERE = Path(__file__).resolve().parent
ROOT = sanitized.ROOT
FAULTS = sanitized.CACHE / "faults"
KILLS, FUZZED = "kills", ("cores", "traces", "packed", "packets")
PATH = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "lib")))
KILLERS = 2
"""Processes that make trials of kills, most of whose time is waiting."""
LINE_S = 60.0
SILENCE_S = 400
"""A worker bounds its trials; one that says nothing for so long has failed itself."""


class Worker:
    """A process that makes trials of the kinds that it is asked for."""

    def __init__(self, script: str, env: Dict[str, str]) -> None:
        self._script, self._env = script, env
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(HERE / self._script)],
            env={**self._env, "PYTHONPATH": PATH}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip

    def trial(self, kind: str, seed: int) -> Dict[str, Any]:
        """What came of it."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{kind} {seed}\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], SILENCE_S)[0]:
                line = process.stdout.readline()
                if line:
                    told: Dict[str, Any] = json.loads(line)
                    return told
        except BrokenPipeError:
            pass
        self.end()
        self._process = self._start()
        why = f"the worker {self._script} ended, or said nothing for {SILENCE_S} s"
        return {"kind": kind, "seed": seed, "fault": why, "log": ""}

    def end(self) -> None:
        """No more trials."""
        self._process.kill()
        self._process.wait()


class Count:
    """What was done, by kind."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.over = False  # the workers are being ended
        self.done: Counter[str] = collections.Counter()
        self.struck: Counter[str] = collections.Counter()
        self.seeds: Dict[str, List[int]] = {}
        self.faults: List[str] = []

    def add(self, told: Dict[str, Any]) -> None:
        """A trial has ended."""
        kind, seed = told["kind"], told["seed"]
        with self.lock:
            if self.over:
                return
            self.done[kind] += 1
            seeds = self.seeds.setdefault(kind, [seed, seed])
            seeds[:] = [min(seed, seeds[0]), max(seed, seeds[1])]
            if told.get("victim"):
                self.struck[f"{told['victim']} {told['signal'][3:]}"] += 1
            if told["fault"]:
                self._fault(kind, seed, told)

    def _fault(self, kind: str, seed: int, told: Dict[str, Any]) -> None:
        self.faults.append(f"{kind} {seed}")
        again = f'make torture TORTURE_ARGS="--only {kind} --seed {seed} --count 1"'
        FAULTS.mkdir(parents=True, exist_ok=True)
        kept = FAULTS / f"{kind}-{seed}.txt"
        kept.write_text(f"{again}\n{told['fault']}\n\n{told['log']}\n")
        first = " ".join(str(told["fault"]).split())[:300]
        print(f"FAULT {kind} {seed}: {first}\n  again: {again}", flush=True)

    def line(self) -> str:
        """How many of each kind."""
        with self.lock:
            kinds = [f"{n:,} {kind}" for kind, n in sorted(self.done.items())]
            struck = sum(self.struck.values())
        return f"{', '.join(kinds) or 'nothing yet'}; {struck:,} struck; {len(self.faults)} faults"


def loop(
    worker: Worker, kinds: List[str], first: int, options: argparse.Namespace, count: Count
) -> None:
    """Trials of these kinds in turn, of every KILLERS-th seed, until it is time."""
    ends = time.monotonic() + 60 * options.minutes
    step = KILLERS if KILLS in kinds else 1
    for seed in range(options.seed + first, options.seed + (options.count or 1 << 62), step):
        for kind in kinds:
            if not options.count and time.monotonic() > ends:
                return
            count.add(worker.trial(kind, seed))


def main() -> int:
    """Returns 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="the first seed; one of the time's choosing")
    parser.add_argument("--count", type=int, default=0, help="trials of each kind, not minutes")
    parser.add_argument("--only", action="append", choices=(KILLS, *FUZZED), default=[])
    options = parser.parse_args()
    if options.seed is None:
        options.seed = int(time.time()) % 1_000_000 * 1000
    wanted = options.only or [KILLS, *FUZZED]
    print(f"torture: the first seed is {options.seed}", flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    inputs = [sys.executable, str(HERE / "inputs.py")]
    subprocess.run(inputs, env={**os.environ, "PYTHONPATH": PATH}, check=True)
    began, count, threads = time.monotonic(), Count(), []
    workers: List[Worker] = []
    killers = min(KILLERS, options.count or KILLERS) if KILLS in wanted else 0
    plans = [("kills.py", dict(os.environ), [KILLS], first) for first in range(killers)]
    plans.append(("fuzz.py", sanitized.environment(), [k for k in wanted if k != KILLS], 0))
    for script, env, kinds, first in plans:
        if kinds:
            workers.append(Worker(script, env))
            arguments = (workers[-1], kinds, first, options, count)
            threads.append(threading.Thread(target=loop, args=arguments, daemon=True))
            threads[-1].start()
    try:
        while any(thread.is_alive() for thread in threads):
            next_line = time.monotonic() + LINE_S
            for thread in threads:
                thread.join(max(0.0, next_line - time.monotonic()))
            print(f"{(time.monotonic() - began) / 60:5.1f} min: {count.line()}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    count.over = True
    for worker in workers:
        worker.end()
    for kind, (first, last) in sorted(count.seeds.items()):
        print(f"{kind}: {count.done[kind]:,} trials, seeds {first} to {last}")
    if count.struck:
        print("struck: " + ", ".join(f"{n} {who}" for who, n in sorted(count.struck.items())))
    faults = ", ".join(count.faults) or "none"
    print(f"torture: {time.monotonic() - began:,.0f} s; {count.line()}: {faults}")
    return 1 if count.faults else 0


if __name__ == "__main__":
    sys.exit(main())
