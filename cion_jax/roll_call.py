"""The processes of a job find each other, compare what they were told, and hear when one of them ends.

JAX's own service ends a process in C++ where somebody is missing. So a plain connection comes first: process 0 listens
at the coordinator's port, the others say who they are and what they know, and process 0 answers all of them when all
are there. Then the port is JAX's. The connections stay: one that breaks tells that its process has ended.
"""

import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from cion_jax.errors import UserError

#: Seconds that others get to come and hear of it, once it is known that the job cannot begin.
GRACE = 10
#: Seconds between two lines that say who is waited for, and until the first of them.
REPORT_EVERY = 30
FIRST_REPORT = 2
#: Seconds for one exchange with somebody who is there.
_ANSWER = 10
#: A machine that is silent: asked after so many seconds, so often, before its connection counts as broken.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
_MOST_BYTES = 1 << 20

Facts = dict[str, str]


class Place(NamedTuple):
    """Where processes meet, and which of them this one is."""

    address: str
    """HOST:PORT of process 0."""
    processes: int
    process: int

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


class Line:
    """A connection to another process; messages are lines of JSON."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._unread = b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Send a message; one who is gone does not hear it, and `receive` tells of that."""
        with suppress(OSError):
            self._socket.settimeout(_ANSWER)
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next message. EOFError if the other one is gone, TimeoutError if it is silent, ValueError if strange."""
        self._socket.settimeout(max(seconds, 0.001))
        while b"\n" not in self._unread:
            try:
                received = self._socket.recv(1 << 16)
            except ConnectionError:
                raise EOFError from None
            if not received:
                raise EOFError
            self._unread += received
            if len(self._unread) > _MOST_BYTES or not self._unread.startswith(b"{"):
                raise ValueError("not a message")
        text, _, self._unread = self._unread.partition(b"\n")
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("not a message")
        return message

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Member(NamedTuple):
    """Another process."""

    name: str
    line: Line


Members = dict[int, Member]


def call_roll(place: Place, facts: Facts, seconds: float, say: Callable[[str], None]) -> Members:
    """Wait until all processes are there and have the same facts; the lines to them, which process 0 has to all.

    Args:
        place: Where they meet.
        facts: What must be the same in all of them, by name.
        seconds: How long they are waited for.
        say: Takes a line that says who is waited for.
    """
    do = _receive_all if place.process == 0 else _report_to_first
    return do(place, facts | {"processes": str(place.processes)}, seconds, say)


class _Clock:
    """Time that is left, and when to say so."""

    def __init__(self, seconds: float, say: Callable[[str], None]):
        self._end = time.monotonic() + seconds
        self._say = say
        self._next_report = time.monotonic() + FIRST_REPORT

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def pause(self, most: float) -> float:
        return max(0.01, min(most, self.left))

    def shorten(self, seconds: float) -> None:
        self._end = min(self._end, time.monotonic() + seconds)

    def report(self, text: str) -> None:
        if time.monotonic() >= self._next_report:
            self._say(f"waiting for {text}, {max(self.left, 0):.0f} s more at most")
            self._next_report = time.monotonic() + REPORT_EVERY


def _receive_all(place: Place, facts: Facts, seconds: float, say: Callable[[str], None]) -> Members:
    """Process 0: hear who the others are, and tell all of them whether the job begins."""
    clock = _Clock(seconds, say)
    members: Members = {}
    problem = None
    with _listen(place) as listener:
        while len(members) < place.processes - 1 and clock.left > 0:
            listener.settimeout(clock.pause(1))
            with suppress(TimeoutError):
                line = Line(listener.accept()[0])
                complaint = _admit(line, place, facts, members)
                if complaint and not problem:
                    problem = complaint
                    clock.shorten(GRACE)
            missing = place.processes - 1 - len(members)
            clock.report(f"{missing} of {place.processes} processes at {place.address}")
    problem = problem or _who_is_missing(place, members, seconds)
    for member in members.values():
        member.line.send(end=problem)
        if problem:
            member.line.close()
    if problem:
        raise UserError(problem)
    return members


def _listen(place: Place) -> socket.socket:
    _, port = place.host_and_port
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=1024)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise UserError(
            f"{place.address}: process 0 cannot listen at port {port} of this machine ({reason}); end what uses it, or "
            "give all processes another port"
        ) from None


def _admit(line: Line, place: Place, facts: Facts, members: Members) -> str | None:
    """Hear who somebody is; what is wrong with that. Who is no process of a job is sent away without a word."""
    try:
        hello = line.receive(_ANSWER)
        process, name, others = int(hello["process"]), str(hello["name"]), dict(hello["facts"])
    except (EOFError, OSError, ValueError, KeyError, TypeError):
        line.close()
        return None
    problem = _difference(f"process {process} ({name})", others, facts)
    if process in members or not 0 < process < place.processes:
        problem = problem or f"two processes are process {process}; number them from 0 to {place.processes - 1}"
        line.send(end=problem)
        line.close()
    else:
        members[process] = Member(name, line)
    return problem


def _difference(who: str, others: Facts, facts: Facts) -> str | None:
    """What somebody was told that process 0 was not."""
    changed = [
        f"{name} is {others.get(name, 'not given')}, not {facts.get(name, 'left out')}"
        for name in sorted(facts.keys() | others.keys())
        if facts.get(name) != others.get(name)
    ]
    if not changed:
        return None
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return (
        f"{who} differs from process 0 ({socket.gethostname()}): {'; '.join(changed[:3])}{more}; give all of them "
        "the same command, data and software"
    )


def _who_is_missing(place: Place, members: Members, seconds: float) -> str | None:
    missing = [str(process) for process in range(1, place.processes) if process not in members]
    if not missing:
        return None
    numbers = ", ".join(missing[:10]) + ", ..." * (len(missing) > 10)
    return (
        f"{len(missing)} of {place.processes} processes have not come to {place.address} within {seconds:g} s "
        f"({numbers}); see what they say and that they reach this address, or wait longer with --join-timeout"
    )


def _report_to_first(place: Place, facts: Facts, seconds: float, say: Callable[[str], None]) -> Members:
    """Any other process: say to process 0 who this is, and hear whether the job begins."""
    line = _reach(place, seconds, say)
    line.send(process=place.process, name=socket.gethostname(), facts=facts)
    # Process 0 may have begun to wait only now.
    problem = _verdict(line, place, _Clock(seconds + GRACE + _ANSWER, say))
    if problem:
        line.close()
        raise UserError(problem)
    return {0: Member(place.host_and_port[0], line)}


def _verdict(line: Line, place: Place, clock: _Clock) -> str | None:
    """Why the job cannot begin, as process 0 says or as its silence does; None if it begins."""
    while clock.left > 0:
        try:
            return line.receive(clock.pause(1))["end"]
        except TimeoutError:
            clock.report(f"others: process 0 is at {place.address}")
        except EOFError:
            return f"process 0 at {place.address} ended before all had come; see what it says"
        except (ValueError, KeyError):
            return f"{place.address}: another program answers there, not process 0; give all processes another port"
    return f"process 0 at {place.address} does not answer; see what it says"


def _reach(place: Place, seconds: float, say: Callable[[str], None]) -> Line:
    clock = _Clock(seconds, say)
    while True:
        try:
            return Line(socket.create_connection(place.host_and_port, timeout=clock.pause(_ANSWER)))
        except OSError as error:
            reason = error.strerror or str(error)
        if clock.left <= 0:
            raise UserError(
                f"process 0 is not at {place.address} after {seconds:g} s ({reason}); see that it runs and can be "
                "reached there, or wait longer with --join-timeout"
            )
        clock.report(f"process 0 at {place.address} ({reason})")
        time.sleep(clock.pause(0.5))


class Watch:
    """Listens, beside the work, for others that end."""

    def __init__(self, members: Members, on_loss: Callable[[str], None]):
        """`on_loss` is told which process has ended, and why if it said so."""
        self._members = members
        self._on_loss = on_loss
        threading.Thread(target=self._listen, daemon=True, name="watch").start()

    def leave(self, reason: str | None = None, but: int | None = None) -> None:
        """Tell the others, but for one, that this process ends: with its work done, or for a reason that ends all."""
        for process, member in self._members.items():
            if process != but:
                member.line.send(left=reason)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for process, member in self._members.items():
                selector.register(member.line, selectors.EVENT_READ, process)
            while selector.get_map():
                for key, _ in selector.select():
                    selector.unregister(key.fileobj)
                    if reason := self._why(key.data):
                        if 0 not in self._members:  # this is process 0, who alone has lines to all
                            self.leave(reason, but=key.data)
                        self._on_loss(reason)

    def _why(self, process: int) -> str | None:
        """Why a process has left; None if its work was done."""
        name, line = self._members[process]
        try:
            return line.receive(_ANSWER)["left"]
        except (EOFError, OSError, ValueError, KeyError):
            return f"process {process} ({name}) has ended without a word"
