"""One client's socket: receiving packets with little delay, acknowledging, sending replies."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import textwrap
import time
from typing import Optional

from gdb_uffd.dataclass import complete_one
from gdb_uffd.replay.interface import Disconnected
from gdb_uffd.server.listen.holder import UnansweredPackets
from gdb_uffd.server.stub.framing import Decoder, FramingEvent, frame
from gdb_uffd.terminal import Output, printable

SPIN_NS = 300_000
"""How long to look for the next packet before sleeping.  An inferior call is some 25 packets,
one after the other; waking a sleeping process on another CPU costs about 70 microseconds."""

_ASKED_MAX = 3
"""gdb waits so often for a reply, `remotetimeout` each time, with a "-" after each; then it goes
on, and takes the next thing that comes for the reply to its next packet (remote.c, MAX_TRIES)."""
_SLOW_NS = 500_000_000  # no client gives up sooner

_RECEIVE_BYTES = 1 << 16
_OUTPUT_BYTES = 8192  # of inferior output in one O packet; its payload is twice as long


class Connection:
    """Packets in, packets out.  Also the `Client` that a running vessel sees."""

    def __init__(
        self,
        sock: socket.socket,
        wake: Optional[int] = None,
        spin_ns: int = SPIN_NS,
        pending: Optional[UnansweredPackets] = None,
    ) -> None:
        """`wake`: a non-blocking pipe that becomes readable when a signal has arrived; `pending`:
        where to note what is not answered yet.

        Native code that waits for the vessel does not run Python's signal handlers; it returns
        when fileno() is readable, so that descriptor stands for both.
        """
        self._socket = sock
        self.pending = pending or UnansweredPackets()
        self._wake = wake
        self._spin_ns = self._spin_alone_ns = spin_ns
        self._cpus = os.sched_getaffinity(0)
        self._control = select.epoll()
        self._control.register(sock.fileno(), select.EPOLLIN)
        if wake is not None:
            self._control.register(wake, select.EPOLLIN)
        self._decoder = Decoder()
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.mid_line = False  # whether the output so far ends inside a line
        self.muted = self.excursion = False
        """The inferior's output is not for the terminal: the client shows it in its own way, or
        not, since what runs is not where the user stands."""
        self.terminal: Optional[Output] = Output()
        """What shows the terminal no more than it should see; None where a program reads."""
        self.columns = 0
        """Of the client's terminal; 0 for no limit."""
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self.tells_of_long = False
        self._acknowledge = True
        self._last_reply = b""
        self._received = 0  # when the last packet came
        self._asked = 0  # how often the client has asked for the reply to it
        self._dropped = False  # whether it gets none
        self._interrupted = False  # while nothing ran
        self.taken = False  # an interrupt was taken by what runs, see interrupt_requested

    def share_cpu(self, cpu: Optional[int]) -> None:
        """Run on the client's CPU from now on, or (None) wherever the scheduler likes again.

        On one CPU the two take turns at the price of a switch; waking a sleeper on another
        CPU costs ten times that.  Looking out for packets would then only keep the client
        from running.  A CPU that may not be used is ignored.
        """
        try:
            if cpu is None:
                os.sched_setaffinity(0, self._cpus)
                self._spin_ns = self._spin_alone_ns
            else:
                os.sched_setaffinity(0, {cpu})
                self._spin_ns = 0
        except (OSError, ValueError, OverflowError):
            self._spin_ns = self._spin_alone_ns

    def stop_acknowledging(self) -> None:
        """QStartNoAckMode was agreed upon; call after its own reply went out."""
        self._acknowledge = False
        self.pending.note_plain()
        self._asked = 0
        self._decoder.verify = False

    def receive(self) -> bytes:
        """The next packet's payload; waits for it.

        A payload beyond the size limit comes back as b"" (to be answered as unknown).
        Disconnected when the client is gone.
        """
        while True:
            item = self._decoder.next()
            if item is None:
                self._fill()
            elif isinstance(item, bytes):
                if self._acknowledge:
                    self._send(b"+")
                self._begin()
                self.pending.read(item)
                return item
            elif item is FramingEvent.RESEND:
                self._asked += 1
                self.pending.idle()
                if self._acknowledge and self._last_reply:
                    self._send(self._last_reply)
            elif item is FramingEvent.TOO_LONG:
                if self._acknowledge:
                    self._send(b"+")
                return b""
            elif item is FramingEvent.BAD:
                if not self._acknowledge:
                    return b""
                self._send(b"-")
            elif item is FramingEvent.INTERRUPT:
                # "Interrupts received while the program is stopped are queued and the program
                # will be interrupted when it is resumed next time" (gdb manual, "Interrupts"):
                # between two steps of gdb's own the program is stopped, too.
                self._interrupted = True
                self.pending.idle()

    def _begin(self) -> None:
        """A packet came."""
        if self._asked >= _ASKED_MAX and not self._acknowledge and not self._dropped:
            # The reply before crossed the client's last "-": it would be taken for this one's.
            text = "the client had given up on an answer that it got after all"
            print(f"gdb_uffd.server: {printable(text)}", file=sys.stderr, flush=True)
            raise Disconnected(text)
        self._asked, self._dropped = 0, False
        self._received = time.perf_counter_ns()

    def _given_up(self) -> bool:
        """Whether the client waits no longer for the reply to the last packet: it is for nobody."""
        if time.perf_counter_ns() - self._received > _SLOW_NS:
            with contextlib.suppress(BlockingIOError):
                self._take()
        self._asked += self._decoder.take_refusals()
        self._dropped = self._asked >= _ASKED_MAX
        return self._dropped

    def reply(self, payload: bytes) -> None:
        """Send one packet.  Disconnected when the client is gone."""
        self.reply_framed(frame(payload))

    def reply_framed(self, packet: bytes) -> None:
        """Send a packet that is framed already, unless nobody waits for it."""
        if self._acknowledge or not self._given_up():
            self.pending.answering()
            self._reply(packet)
        self.pending.idle()

    def _reply(self, packet: bytes) -> None:
        if self._acknowledge:
            self._last_reply = packet
        self._send(packet)

    def _fill(self) -> None:
        deadline = time.perf_counter_ns() + self._spin_ns
        while True:
            try:
                self._take(self.pending)
                return
            except BlockingIOError:
                if complete_one():
                    pass
                elif time.perf_counter_ns() < deadline:
                    # Where both share a CPU, spinning would only keep the client from it.
                    os.sched_yield()
                else:
                    self._poll.poll()

    def _take(self, pending: Optional[UnansweredPackets] = None) -> None:
        """What has arrived; BlockingIOError when nothing has."""
        try:
            if pending is not None:
                self._socket.recv_into(self._buffer, 1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
                pending.reading()
            count = self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            raise Disconnected(f"receiving failed: {error.strerror}") from error
        if count == 0:
            raise Disconnected("the client closed the connection")
        self._decoder.feed(bytes(self._buffer[:count]))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Disconnected(f"sending failed: {error.strerror}") from error

    # What a running vessel needs: replay.interface.Client.

    def fileno(self) -> int:
        """Readable when the client sent something or a signal arrived."""
        return self._control.fileno()

    def interrupt_requested(self) -> bool:
        """Take what arrived; True when that is Ctrl-C.  Anything else waits for its turn."""
        if self._wake is not None:
            try:
                os.read(self._wake, 64)
            except BlockingIOError:
                pass  # it was the client
        with contextlib.suppress(BlockingIOError):
            self._take()
        asked = self.interrupt_waiting()
        self.taken |= asked
        return asked

    def interrupt_waiting(self) -> bool:
        """Whether an interrupt arrived before the resume packet or together with it; it is
        consumed."""
        kept, self._interrupted = self._interrupted, False
        return self._decoder.take_interrupt() or kept

    def keep_interrupt(self) -> None:
        """One has come in other ways."""
        self._interrupted = True

    def forget_interrupt(self) -> None:
        """What it was meant for is no more."""
        self._interrupted = False

    def runs_on(self, seconds: float) -> None:
        """What the client wants to be told, once, of a call that takes long."""
        if self.tells_of_long:
            self.tells_of_long = False
            message(self, f"running for {seconds:.0f} s; Ctrl-C or `set uffd call-timeout` ends it")

    def output(self, data: bytes) -> None:
        """The inferior's output, as O packets (gdb manual, "Stop Reply Packets")."""
        if self.muted or self.excursion:
            return
        if self.terminal is not None:
            data = self.terminal.feed(data)
        self._send_output(data)

    def output_stops(self, goes_on: bool) -> None:
        """The client prints next: its text has its own colours.  `goes_on`: what is not whole yet
        is kept for more of it, or for `take_held`."""
        if self.terminal is not None and not (self.muted or self.excursion):
            self._send_output(b"" if goes_on else self.terminal.rest())
            mid_line = self.mid_line
            self._send_output(self.terminal.plain())
            self.mid_line = mid_line

    def take_held(self) -> int:
        """How many bytes of the output were not shown; the client does that."""
        if self.terminal is None:
            return 0
        held = self.terminal.held_bytes
        self.terminal.drop()
        return held

    def _send_output(self, data: bytes) -> None:
        if data:
            self.mid_line = not data.endswith(b"\n")
        for start in range(0, len(data), _OUTPUT_BYTES):
            self._reply(frame(b"O" + data[start : start + _OUTPUT_BYTES].hex().encode("ascii")))

    def close(self) -> None:
        """Close the socket.  Idempotent."""
        self._control.close()
        self._socket.close()


def message(connection: Connection, text: str) -> None:
    """One line of our own for the user, while the client waits for a stop reply."""
    line = f"uffd: {printable(' '.join(text.split()))}"
    if connection.columns > len(_INDENT) + 1:
        line = "\n".join(
            textwrap.wrap(
                line, connection.columns - 1, subsequent_indent=_INDENT,
                break_long_words=False, break_on_hyphens=False,
            )
        )  # fmt: skip
    start = "\n" if connection.mid_line else ""
    connection.output(f"{start}{line}\n".encode("utf-8", "replace"))


_INDENT = "  "
"""Before what goes on of a line of ours, as the client has it."""
