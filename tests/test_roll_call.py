"""Processes meet, or say in a line why they do not; those that are left hear of one that ends."""

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from cion_jax import roll_call
from cion_jax.errors import UserError
from cion_jax.roll_call import Facts, Line, Members, Place, Watch, call_roll
from processes import free_address

#: Longer than any test takes.
LONG = 100.0
SAME: Facts = {"batch": "16", "jax": "1.2"}


def quiet(text: str) -> None:
    """Takes a report."""


@contextmanager
def meeting(
    address: str, numbers: list[int], facts: list[Facts], seconds: float = LONG, say: Callable[[str], None] = quiet
) -> Iterator[list[Future[Members]]]:
    """The roll calls of some processes of three, each in a thread; facts are those of each."""
    with ThreadPoolExecutor() as pool:
        yield [
            pool.submit(call_roll, Place(address, 3, number), own, seconds, say)
            for number, own in zip(numbers, facts, strict=True)
        ]


def hang_up(members: list[Members]) -> None:
    for each in members:
        for _, line in each.values():
            line.close()


def refusals(calls: list[Future[Members]]) -> list[str]:
    return [str(call.exception(LONG)) for call in calls if isinstance(call.exception(LONG), UserError)]


def test_all_find_each_other_whoever_is_first_and_whoever_else_rings() -> None:
    address = free_address()
    place = Place(address, 3, 0)
    with meeting(address, [2, 0], [SAME] * 2) as early:
        while True:  # until process 0 listens, others are refused
            try:
                stranger = socket.create_connection(place.host_and_port)
                break
            except OSError:
                time.sleep(0.01)
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1) == b""
        with meeting(address, [1], [SAME]) as late:
            members = [call.result(LONG) for call in (*early, *late)]
    assert [sorted(each) for each in members] == [[0], [1, 2], [0]]
    with socket.create_server(place.host_and_port):  # the port is free again, with the lines still open
        pass
    hang_up(members)
    stranger.close()


def test_who_does_not_come_is_named() -> None:
    with meeting(free_address(), [0, 2], [SAME] * 2, seconds=1) as calls:
        said = refusals(calls)
    assert len(said) == 2 and said[0] == said[1]
    assert "1 of 3 processes have not come to 127.0.0.1:" in said[0] and "within 1 s (1)" in said[0]
    with meeting(free_address(), [2], [SAME], seconds=1) as calls:
        (said,) = refusals(calls)
    assert "process 0 is not at 127.0.0.1:" in said and "after 1 s" in said


def test_those_who_wait_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "REPORT_EVERY", 0.1)
    monkeypatch.setattr(roll_call, "FIRST_REPORT", 0)
    address, lines = free_address(), queue.Queue[str]()
    with meeting(address, [2], [SAME], say=lines.put) as lonely:
        assert lines.get(timeout=LONG).startswith(f"waiting for process 0 at {address} (")
        with meeting(address, [0], [SAME], say=lines.put) as calls:
            while "waiting for 1 of 3 processes at" not in lines.get(timeout=LONG):
                pass
            with meeting(address, [1], [SAME]) as rest:
                hang_up([call.result(LONG) for call in (*lonely, *calls, *rest)])


@pytest.mark.parametrize(
    ("others", "text"),
    [
        (SAME | {"batch": "32"}, "batch is 32, not 16"),
        (SAME | {"jax": "1.3"}, "jax is 1.3, not 1.2"),
        (SAME | {"new": "1"}, "new is 1, not left out"),
        ({"batch": "16"}, "jax is not given, not 1.2"),
    ],
)
def test_what_differs_is_named_and_ends_all(others: Facts, text: str) -> None:
    with meeting(free_address(), [0, 1, 2], [SAME, SAME, others]) as calls:
        said = refusals(calls)
    assert len(said) == 3 and len(set(said)) == 1
    assert said[0].startswith("process 2 (") and f"differs from process 0 ({socket.gethostname()}): {text}" in said[0]


def test_a_number_that_two_have_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "GRACE", 0.5)
    with meeting(free_address(), [0, 1, 1], [SAME] * 3) as calls:
        assert refusals(calls) == ["two processes are process 1; number them from 0 to 2"] * 3


def test_a_port_in_use_is_refused_at_once() -> None:
    address = free_address()
    with socket.create_server(Place(address, 3, 0).host_and_port), meeting(address, [0], [SAME]) as calls:
        (said,) = refusals(calls)
    assert said.startswith(f"{address}: process 0 cannot listen at port ")
    assert "(Address already in use); end what uses it" in said


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "another program answers there"),
        (b"\x00\x00\x12\x04", "another program answers there"),  # as JAX's own service begins
        (b"", "process 0 at .* ended before all"),
    ],
)
def test_who_answers_otherwise_is_not_waited_for(answer: bytes, text: str) -> None:
    address = free_address()
    with socket.create_server(Place(address, 3, 0).host_and_port) as server, meeting(address, [1], [SAME]) as calls:
        other = server.accept()[0]
        other.recv(1)
        other.sendall(answer)
        other.shutdown(socket.SHUT_WR)
        with pytest.raises(UserError, match=text):
            calls[0].result(LONG)
        other.close()


def test_the_others_hear_of_one_that_ends_and_why() -> None:
    """Also those who have no line to it; one that is done may leave."""
    with meeting(free_address(), [0, 1, 2], [SAME] * 3) as calls:
        members = [call.result(LONG) for call in calls]
    heard: list[queue.Queue[str]] = [queue.Queue() for _ in members]
    watches = [Watch(lines, ears.put) for lines, ears in zip(members, heard, strict=True)]
    watches[2].leave()
    watches[1].leave("process 1 (here) has ended: the disk is full")
    assert [ears.get(timeout=LONG) for ears in (heard[0], heard[2])] == [
        "process 1 (here) has ended: the disk is full"
    ] * 2
    assert heard[0].empty() and heard[1].empty()
    hang_up(members)


def test_an_end_without_a_word_is_heard() -> None:
    with meeting(free_address(), [0, 1, 2], [SAME] * 3) as calls:
        members = [call.result(LONG) for call in calls]
    heard: list[queue.Queue[str]] = [queue.Queue() for _ in members]
    watches = [Watch(members[number], heard[number].put) for number in (0, 2)]
    members[1][0].line.close()  # as the system does for a process that is killed
    said = [heard[number].get(timeout=LONG) for number in (0, 2)]
    assert said == [f"process 1 ({socket.gethostname()}) has ended without a word"] * 2
    assert watches
    hang_up(members)


def test_messages_come_whole_or_not_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        line = Line(server.accept()[0])
    text = json.dumps({"facts": {"é": "x" * 100_000}}).encode() + b"\n"
    sender = threading.Thread(target=lambda: [one.sendall(text[i : i + 7001]) for i in range(0, len(text), 7001)])
    sender.start()
    received: dict[str, Any] = line.receive(LONG)
    sender.join()
    assert received == json.loads(text)
    one.sendall(b"[1]\n")
    with pytest.raises(ValueError, match="not a message"):
        line.receive(LONG)
    line.close()
    one.close()
