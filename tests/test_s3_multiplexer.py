"""Many requests from one thread: all answered, in order, in bounded memory, whatever servers do."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from persidict.stores.s3.transport.direct import connections, multiplexer, poller
from persidict.stores.s3.transport.direct.wire import DirectWire
from persidict.stores.s3.transport.messages import (
    CopyObject,
    GetObject,
    HeadBucket,
    HeadObject,
    PutObject,
    Refusal,
    Request,
)
from tests.direct_wires import direct_wire, pool_of, sent_otherwise
from tests.s3_servers.scripted import (
    Arrived,
    HangUp,
    ScriptedServer,
    error,
    make_certificate,
    reply,
    scripted,
    server_context,
)

pytestmark = pytest.mark.direct_wire


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that answers with the key."""
    with scripted(lambda request: reply(request.key.encode())) as running:
        yield running


@pytest.fixture(params=["epoll", "selectors"])
def any_poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "selectors":
        monkeypatch.setattr(multiplexer, "new_poller", poller.SelectorPoller)


def read_all(found: Any) -> list[bytes]:
    return [item.body.read() for item in found]


def names(count: int) -> list[str]:
    return [f"key-{number:05d}" for number in range(count)]


def get_all(wire: DirectWire, keys: list[str], again: Any = multiplexer.never) -> list[bytes]:
    return read_all(wire.send_many(map(GetObject, keys), again))


def at_once(request: Request[Any], refusal: Refusal, attempt: int) -> float | None:
    """Send again what may fare better, without pauses."""
    return 0.0 if refusal.is_passing and attempt < 20 else None


@pytest.mark.parametrize("concurrency", [1, 3, 64])
@pytest.mark.usefixtures("any_poller")
def test_replies_come_in_the_order_of_the_requests(
    server: ScriptedServer, concurrency: int
) -> None:
    wire = direct_wire(server.endpoint_url, concurrency=concurrency)
    keys = names(500)
    assert get_all(wire, keys) == [key.encode() for key in keys]
    assert server.connections <= concurrency


@pytest.mark.usefixtures("any_poller")
def test_replies_that_come_in_any_order_are_put_into_order(server: ScriptedServer) -> None:
    """Each even request is answered after the next odd one has been."""
    events = {number: threading.Event() for number in range(200)}

    def answer(request: Arrived) -> bytes:
        number = int(request.key.rpartition("-")[2])
        if number % 2 == 0:
            assert events[number + 1].wait(20)
        events[number].set()
        return reply(request.key.encode())

    server.answer = answer
    keys = names(200)
    assert get_all(direct_wire(server.endpoint_url), keys) == [key.encode() for key in keys]


def test_nothing_is_sent_before_somebody_asks(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    found = wire.send_many(map(GetObject, names(5)))
    assert not server.arrived
    assert read_all(found)
    assert len(server.arrived) == 5


def test_an_empty_source_asks_nothing(server: ScriptedServer) -> None:
    assert get_all(direct_wire(server.endpoint_url), []) == []
    assert not server.arrived


def test_the_source_is_taken_a_bounded_number_ahead(server: ScriptedServer) -> None:
    taken = 0

    def source() -> Iterator[GetObject]:
        nonlocal taken
        for key in names(10_000):
            taken += 1
            yield GetObject(key)

    found = direct_wire(server.endpoint_url, concurrency=4).send_many(source())
    for number in range(1, 200):
        next(found)
        assert taken <= number + 2 * 4
    found.close()  # type: ignore[attr-defined]


def test_the_connections_are_shared_with_single_requests(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url, concurrency=4)
    wire.send(GetObject("key"))
    get_all(wire, names(50))
    wire.send(GetObject("key"))
    get_all(wire, names(50))
    assert server.connections <= 4


def test_a_refusal_stands_in_the_place_of_its_reply(server: ScriptedServer) -> None:
    server.answer = lambda request: (
        error(404, "NoSuchKey") if request.key.endswith("7") else reply(request.key.encode())
    )
    found = list(direct_wire(server.endpoint_url).send_many(map(GetObject, names(30))))
    absent = [number for number, item in enumerate(found) if isinstance(item, Refusal)]
    assert absent == [7, 17, 27]
    assert all(item.is_absence for item in found if isinstance(item, Refusal))


def test_bodies_of_all_sizes_are_written_and_read(server: ScriptedServer) -> None:
    chance = random.Random(5)
    sizes = [0, 1, 200, 65_536, 65_537, 300_000, 3_000_000]
    bodies = {key: chance.randbytes(chance.choice(sizes)) for key in names(60)}
    stored: dict[str, bytes] = {}

    def answer(request: Arrived) -> bytes:
        if request.method == "PUT":
            stored[request.key] = request.message.body
            return reply()
        return reply(stored[request.key])

    server.answer = answer
    wire = direct_wire(server.endpoint_url)
    written = list(wire.send_many(PutObject(key, body) for key, body in bodies.items()))
    assert [item.etag for item in written] == ['"1"'] * 60  # type: ignore[union-attr]
    assert stored == bodies
    assert get_all(wire, list(bodies)) == list(bodies.values())


def test_a_very_large_body_is_left_on_its_connection(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplexer, "MOST_READ_AHEAD", 200_000)
    large = os.urandom(1_000_000)
    server.answer = lambda request: reply(large if request.key.endswith("5") else b"small")
    found = get_all(direct_wire(server.endpoint_url), names(30))
    assert [len(body) for body in found] == [
        1_000_000 if number % 10 == 5 else 5 for number in range(30)
    ]
    assert found[15] == large


def test_what_is_read_ahead_is_bounded(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplexer, "_MOST_BYTES", 3_000_000)
    body = os.urandom(1_000_000)
    server.answer = lambda request: reply(body)
    wire = direct_wire(server.endpoint_url, concurrency=16)
    held: list[int] = []
    bound = multiplexer.Multiplexer._turn

    def watch(self: multiplexer.Multiplexer) -> None:
        bound(self)
        parsers = [job.parser for job in self._window if job.parser is not None]
        held.append(sum(parser.buffered for parser in parsers if not parser.is_complete))

    monkeypatch.setattr(multiplexer.Multiplexer, "_turn", watch)
    for found in get_all(wire, names(40)):
        assert found == body
    assert max(held) <= 4_000_000 + 16 * 65_536


@pytest.mark.usefixtures("any_poller")
def test_a_server_that_closes_after_every_few_replies_is_followed(server: ScriptedServer) -> None:
    counts: Counter[int] = Counter()

    def answer(request: Arrived) -> Iterator[bytes]:
        counts[request.connection] += 1
        yield reply(request.key.encode())
        if counts[request.connection] % 3 == 0:
            raise HangUp

    server.answer = answer
    keys = names(300)
    found = get_all(direct_wire(server.endpoint_url), keys, at_once)
    assert found == [key.encode() for key in keys]


def test_writes_on_connections_that_close_are_each_done_once_or_told(
    server: ScriptedServer,
) -> None:
    """Closing is announced by the end of the connection alone; a write must not act twice."""
    counts: Counter[int] = Counter()
    acted: Counter[str] = Counter()

    def answer(request: Arrived) -> Iterator[bytes]:
        counts[request.connection] += 1
        acted[request.key] += 1
        yield reply()
        if counts[request.connection] % 3 == 0:
            raise HangUp

    server.answer = answer
    wire = direct_wire(server.endpoint_url)
    keys = names(300)
    found = list(wire.send_many(PutObject(key, b"body") for key in keys))
    for key, item in zip(keys, found, strict=True):
        assert acted[key] <= 1
        if isinstance(item, Refusal):
            assert item.may_have_acted
        else:
            assert acted[key] == 1


def test_a_reply_to_nothing_is_never_taken_for_that_to_the_next_request(
    server: ScriptedServer,
) -> None:
    is_idle = threading.Event()

    def answer(request: Arrived) -> Iterator[bytes]:
        yield reply(request.key.encode())
        if request.number == 0:
            is_idle.wait(10)
            yield reply(b"a reply to nothing")

    server.answer = answer
    wire = direct_wire(server.endpoint_url, concurrency=1)

    def requests() -> Iterator[GetObject]:
        yield GetObject("first")
        is_idle.set()
        (connection,) = pool_of(wire)._open
        assert connections.ready(connection.sock, connections.READABLE, 10)
        yield GetObject("second")

    assert read_all(wire.send_many(requests())) == [b"first", b"second"]


def test_reading_goes_on_when_the_server_has_cut_all_connections(server: ScriptedServer) -> None:
    keys = names(300)
    found = direct_wire(server.endpoint_url).send_many(map(GetObject, keys), at_once)
    first = read_all(next(found) for _ in range(100))
    server.close_connections()
    assert first + read_all(found) == [key.encode() for key in keys]


def test_no_write_acts_twice_when_the_server_has_cut_all_connections(
    server: ScriptedServer,
) -> None:
    keys = names(300)

    def unless_it_may_have_acted(request: Any, refusal: Refusal, attempt: int) -> float | None:
        return None if refusal.may_have_acted else at_once(request, refusal, attempt)

    requests = [PutObject(key, b"body") for key in keys]
    found = direct_wire(server.endpoint_url).send_many(requests, unless_it_may_have_acted)
    answers: list[Any] = [next(found) for _ in range(100)]
    server.close_connections()
    answers += found
    acted = Counter(request.key for request in server.arrived)
    assert max(acted.values()) == 1
    for key, answer in zip(keys, answers, strict=True):
        assert answer.may_have_acted if isinstance(answer, Refusal) else acted[key] == 1
    assert sum(isinstance(answer, Refusal) for answer in answers) <= 2 * 8


def test_a_storm_of_slow_down_is_weathered(server: ScriptedServer) -> None:
    chance = random.Random(3)
    acted: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(request: Arrived) -> bytes:
        with lock:
            if chance.random() < 0.2:
                return error(503, "SlowDown")
            acted[request.key] += 1
        return reply()

    server.answer = answer
    wire = direct_wire(server.endpoint_url, concurrency=32)
    keys = names(1500)
    found = list(wire.send_many((PutObject(key, b"body") for key in keys), at_once))
    assert not [item for item in found if isinstance(item, Refusal)]
    assert acted == Counter(keys)


def test_a_service_that_asks_for_fewer_requests_gets_fewer_at_a_time(
    server: ScriptedServer,
) -> None:
    """The server refuses whatever goes beyond three at a time."""
    under_way = 0
    refused: list[int] = []
    condition = threading.Condition()

    def answer(request: Arrived) -> bytes:
        nonlocal under_way
        with condition:
            if under_way >= 3:
                refused.append(request.number)
                return error(503, "SlowDown")
            under_way += 1
            condition.wait(0.002)
            under_way -= 1
        return reply()

    server.answer = answer
    wire = direct_wire(server.endpoint_url, concurrency=32)
    found = list(wire.send_many(map(HeadObject, names(600)), at_once))
    assert not [item for item in found if isinstance(item, Refusal)]
    later = [number for number in refused if number > 200]
    assert len(later) < 0.4 * (len(server.arrived) - 200)


def test_what_is_sent_again_does_not_hold_up_others(server: ScriptedServer) -> None:
    """The first request is refused until all others have been answered."""
    others = set(names(17)[1:])
    done: set[str] = set()

    def answer(request: Arrived) -> bytes:
        if request.key in others:
            done.add(request.key)
        elif done != others:
            return error(503, "SlowDown")
        return reply(request.key.encode())

    def soon(request: Request[Any], refusal: Refusal, attempt: int) -> float | None:
        return 0.01 if attempt < 500 else None

    server.answer = answer
    found = get_all(direct_wire(server.endpoint_url), names(17), soon)
    assert found == [key.encode() for key in names(17)]


def test_an_earlier_attempt_that_may_have_acted_is_remembered(server: ScriptedServer) -> None:
    server.answer = lambda request: (
        error(500, "InternalError") if request.number == 0 else error(412, "PreconditionFailed")
    )
    wire = direct_wire(server.endpoint_url)
    [refusal] = wire.send_many([PutObject("key", b"body", if_match='"1"')], at_once)
    assert isinstance(refusal, Refusal)
    assert refusal.is_unmet
    assert refusal.may_have_acted


def test_a_server_that_does_not_answer_some_is_given_up_for_those(server: ScriptedServer) -> None:
    release = threading.Event()

    def answer(request: Arrived) -> bytes:
        if request.key.endswith("3"):
            release.wait(20)
        return reply(request.key.encode())

    server.answer = answer
    wire = direct_wire(server.endpoint_url, read_timeout=0.5)
    found = list(wire.send_many(map(GetObject, names(20))))
    release.set()
    silent = [number for number, item in enumerate(found) if isinstance(item, Refusal)]
    assert silent == [3, 13]
    assert all(isinstance(item.error, ReadTimeoutError) for item in found if type(item) is Refusal)


def test_a_port_where_nobody_listens_is_told_for_each() -> None:
    found = list(direct_wire("http://127.0.0.1:9").send_many(map(HeadObject, names(20))))
    assert len(found) == 20
    for item in found:
        assert isinstance(item, Refusal)
        assert isinstance(item.error, EndpointConnectionError)
        assert not item.may_have_acted


def test_replies_that_are_none_are_told_for_each(server: ScriptedServer) -> None:
    server.answer = lambda request: b"SSH-2.0-OpenSSH\r\n\r\n"
    found = list(direct_wire(server.endpoint_url).send_many(map(GetObject, names(20))))
    for item in found:
        assert isinstance(item, Refusal)
        assert isinstance(item.error, ConnectionClosedError)


def test_a_body_that_is_cut_is_never_taken_for_a_whole_one(server: ScriptedServer) -> None:
    def answer(request: Arrived) -> Iterator[bytes]:
        yield reply(b"half", length=8)
        raise HangUp

    server.answer = answer
    for item in direct_wire(server.endpoint_url).send_many(map(GetObject, names(5))):
        assert not isinstance(item, Refusal)
        assert item.body is not None
        with pytest.raises(Refusal):
            item.body.read()


def test_what_the_direct_wire_does_not_know_goes_its_own_way(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    unusual = CopyObject("key", "arn:aws:s3:eu-west-1:123456789012:accesspoint/x", "key")
    requests: list[Request[Any]] = [HeadBucket(), GetObject("key"), unusual, GetObject("key")]
    found = list(wire.send_many(requests))
    assert [item is None for item in found] == [True, False, True, False]
    assert sent_otherwise(wire) == [requests[0], unusual]


# ---------------------------------------------------------------------- ends


def test_an_error_of_the_source_comes_after_the_replies_before_it(server: ScriptedServer) -> None:
    def source() -> Iterator[GetObject]:
        yield from map(GetObject, names(5))
        raise LookupError("the source is broken")

    wire = direct_wire(server.endpoint_url)
    found = wire.send_many(source())
    assert read_all(next(found) for _ in range(5)) == [key.encode() for key in names(5)]
    with pytest.raises(LookupError):
        next(found)


def test_a_consumer_that_stops_leaves_nothing_under_way(server: ScriptedServer) -> None:
    release = threading.Event()

    def answer(request: Arrived) -> bytes:
        if request.key != names(1)[0]:
            release.wait(20)
        return reply(request.key.encode())

    server.answer = answer
    wire = direct_wire(server.endpoint_url)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    found = wire.send_many(map(GetObject, names(100)))
    next(found)
    found.close()  # type: ignore[attr-defined]
    release.set()
    pool = pool_of(wire)
    while (idle := pool.take_idle()) is not None:
        idle.close()
    assert not [item for item in pool._open if item.sock.fileno() != -1]
    if before:
        server_side = len(server._open)
        assert len(os.listdir("/proc/self/fd")) <= before + server_side


class Interrupted(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kind", [poller.EpollPoller, poller.SelectorPoller])
def test_an_exception_while_a_connection_is_given_up_leaves_it_neither_open_nor_to_others(
    kind: type[poller.Poller], moment: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwatch = multiplexer.Multiplexer._unwatch

    def be_interrupted(many: multiplexer.Multiplexer, channel: Any) -> None:
        if channel.job is not None:  # it is still to be opened
            unwatch(many, channel)
            return
        monkeypatch.setattr(multiplexer.Multiplexer, "_unwatch", unwatch)
        if moment == "after":
            many._poller.unregister(channel.descriptor)
        raise Interrupted

    monkeypatch.setattr(multiplexer, "new_poller", kind)
    monkeypatch.setattr(multiplexer.Multiplexer, "_unwatch", be_interrupted)
    server.answer = lambda request: reply(b"", "Connection: close")
    wire = direct_wire(server.endpoint_url)
    with pytest.raises(Interrupted):
        get_all(wire, names(20))
    pool = pool_of(wire)
    assert pool.take_idle() is None
    assert not [item for item in pool._open if item.sock.fileno() != -1]


def test_a_consumer_that_pauses_finds_everything_as_it_was(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it pauses, time-outs run out; what has arrived meanwhile is read all the same."""
    wire = direct_wire(server.endpoint_url, read_timeout=5)
    keys = names(40)
    found = wire.send_many(map(GetObject, keys))
    first = next(found)
    now = multiplexer.time.monotonic
    arrived = threading.Event()
    while len(server.arrived) < 8:
        arrived.wait(0.01)
    arrived.wait(0.1)
    monkeypatch.setattr(multiplexer.time, "monotonic", lambda: now() + 1000)
    assert read_all([first, *found]) == [key.encode() for key in keys]


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass on the clock by which time-outs run."""
    now = multiplexer.time.monotonic
    passed = [0.0]
    monkeypatch.setattr(multiplexer.time, "monotonic", lambda: now() + sum(passed))
    return passed.append


def test_the_time_that_a_consumer_takes_is_no_delay_of_the_server(
    tmp_path: Path, pass_time: Callable[[float], None]
) -> None:
    """Connections that it has left half open, as those of TLS are, go on being opened."""
    certificate = make_certificate(tmp_path, "server")
    refused = []

    def note(request: Request[Any], refusal: Refusal, attempt: int) -> float | None:
        refused.append(request)
        return 0.0

    def answer(request: Arrived) -> bytes:
        return reply(request.key.encode(), "Connection: close")

    with scripted(answer, tls=server_context(certificate)) as server:
        wire = direct_wire(
            server.endpoint_url, ca_bundle=str(certificate), concurrency=2, connect_timeout=10
        )
        for item in wire.send_many(map(GetObject, names(12)), note):
            item.body.read()  # type: ignore[union-attr]
            pass_time(15)
    assert not refused


def test_requests_leave_while_a_slow_source_makes_more(
    server: ScriptedServer, pass_time: Callable[[float], None]
) -> None:
    has_arrived = threading.Event()

    def answer(request: Arrived) -> bytes:
        has_arrived.set()
        return reply()

    server.answer = answer

    def made() -> Iterator[Request[Any]]:
        for key in names(2):
            yield PutObject(key, b"")
            pass_time(1)
        assert has_arrived.wait(5), "the first request waits for the third"
        yield PutObject("last", b"")

    assert len(list(direct_wire(server.endpoint_url).send_many(made()))) == 3


def test_two_streams_from_one_thread_do_not_meet(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    keys = names(100)
    outer = wire.send_many(
        PutObject(key, item.body.read())  # type: ignore[union-attr]
        for key, item in zip(keys, wire.send_many(map(GetObject, keys)), strict=True)
    )
    assert len(list(outer)) == 100
    written = {item.key: item.message.body for item in server.arrived if item.method == "PUT"}
    assert written == {key: key.encode() for key in keys}


def test_threads_do_not_meet(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url, concurrency=8)
    barrier = threading.Barrier(6)
    wrong: list[object] = []

    def work(number: int) -> None:
        keys = [f"{number}-{key}" for key in names(150)]
        barrier.wait()
        if get_all(wire, keys) != [key.encode() for key in keys]:
            wrong.append(number)
        for key in keys[:50]:
            body = wire.send(GetObject(key)).body
            if body is None or body.read() != key.encode():
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---------------------------------------------------------------------- forks


def in_child(work: Callable[[], bool]) -> bool:
    """Return what a forked child finds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 0


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_has_connections_of_its_own(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    keys = names(50)
    get_all(wire, keys)
    idle = len(pool_of(wire)._idle)
    assert in_child(lambda: get_all(wire, keys) == [key.encode() for key in keys])
    assert len(pool_of(wire)._idle) == idle
    before = server.connections
    assert get_all(wire, keys) == [key.encode() for key in keys]
    assert server.connections == before


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_goes_on_with_what_its_parent_began(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    keys = names(100)
    found = wire.send_many(map(GetObject, keys))
    assert read_all(next(found) for _ in range(10)) == [key.encode() for key in keys[:10]]
    rest = [key.encode() for key in keys[10:]]
    assert in_child(lambda: read_all(found) == rest)
    assert read_all(found) == rest


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_large_body_stays_with_the_parent(server: ScriptedServer) -> None:
    body = os.urandom(30_000_000)
    server.answer = lambda request: reply(body)
    stream = direct_wire(server.endpoint_url).send(GetObject("key")).body
    assert stream is not None

    def child_cannot_read() -> bool:
        try:
            stream.read()
        except Refusal:
            return True
        return False

    assert in_child(child_cannot_read)
    assert stream.read() == body


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_thirty_forks_under_load_all_get_their_own_replies(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url, concurrency=4)
    stop = threading.Event()
    wrong: list[object] = []

    def load(number: int) -> None:
        while not stop.is_set():
            keys = [f"{number}-{key}" for key in names(20)]
            if get_all(wire, keys) != [key.encode() for key in keys]:
                wrong.append(number)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(30):
            keys = [f"child-{number}-{key}" for key in names(20)]
            if not in_child(lambda keys=keys: get_all(wire, keys) == [k.encode() for k in keys]):
                wrong.append(keys[0])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def _get_in_other_process(endpoint_url: str, results: Any) -> None:
    results.send(get_all(direct_wire(endpoint_url), names(20)))


def test_a_spawned_process_is_on_its_own(server: ScriptedServer) -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_get_in_other_process, args=(server.endpoint_url, sender))
    process.start()
    sender.close()
    # importing everything takes long where many tests run; a process that dies is told at once
    assert multiprocessing.connection.wait([receiver, process.sentinel], 240)
    assert receiver.poll(), f"it ended with {process.exitcode} and has sent nothing"
    assert receiver.recv() == [key.encode() for key in names(20)]
    process.join()


# ---------------------------------------------------------------------- credentials and TLS


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_credentials_that_expire_in_the_middle_are_refreshed_once(
    server: ScriptedServer, count: int
) -> None:
    from datetime import UTC, datetime, timedelta

    refreshed: list[str] = []
    clock = datetime.now(UTC)

    def refresh() -> dict[str, Any]:
        refreshed.append(f"key-{len(refreshed)}")
        return {
            "access_key": refreshed[-1],
            "secret_key": "secret",
            "token": "token",
            "expiry_time": (clock + timedelta(hours=9)).isoformat(),
        }

    expiry = clock + timedelta(hours=1)
    credentials = RefreshableCredentials(
        "old", "secret", "token", expiry, refresh, "test", time_fetcher=lambda: clock
    )
    wire = direct_wire(server.endpoint_url, credentials=credentials)
    keys = names(count)
    found = wire.send_many(map(GetObject, keys))
    for number, (key, item) in enumerate(zip(keys, found, strict=True)):
        assert item.body.read() == key.encode()  # type: ignore[union-attr]
        if number == count // 4:
            clock += timedelta(hours=2)
    used = [item.message.headers["authorization"] for item in server.arrived]
    old = [text for text in used if "Credential=old/" in text]
    assert len(refreshed) == 1
    assert len(used) == count
    assert (
        count // 4 < len(old) <= count // 4 + 1 + 2 * 8
    )  # the server's threads note them in an order of their own


def test_a_refresh_serves_all_threads(server: ScriptedServer) -> None:
    from datetime import UTC, datetime, timedelta

    refreshed: list[int] = []

    def refresh() -> dict[str, Any]:
        refreshed.append(1)
        return {
            "access_key": "new",
            "secret_key": "secret",
            "token": "token",
            "expiry_time": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        }

    expired = datetime.now(UTC) - timedelta(hours=1)
    credentials = RefreshableCredentials("old", "secret", "token", expired, refresh, "test")
    wire = direct_wire(server.endpoint_url, credentials=credentials)
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait()
        get_all(wire, names(20))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refreshed) == 1
    assert all(
        "Credential=new/" in item.message.headers["authorization"] for item in server.arrived
    )


@pytest.mark.usefixtures("any_poller")
def test_many_requests_travel_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "server")
    body = os.urandom(400_000)

    def answer(request: Arrived) -> bytes:
        return reply(body if request.key.endswith("5") else request.key.encode())

    with scripted(answer, tls=server_context(certificate)) as server:
        wire = direct_wire(server.endpoint_url, ca_bundle=str(certificate))
        keys = names(100)
        found = get_all(wire, keys)
        assert found == [body if key.endswith("5") else key.encode() for key in keys]
        list(wire.send_many(PutObject(key, body) for key in keys[:20]))
        assert all(item.message.body == body for item in server.arrived[-20:])
        assert server.connections <= 8


def test_nobody_else_is_trusted_by_many_requests(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "server")
    other = make_certificate(tmp_path, "other")
    with scripted(lambda request: reply(), tls=server_context(certificate)) as server:
        wire = direct_wire(server.endpoint_url, ca_bundle=str(other))
        found = list(wire.send_many(map(GetObject, names(10))))
    assert all(isinstance(item, Refusal) and not item.may_have_acted for item in found)
    assert not server.arrived


def test_credentials_are_asked_for_each_request(server: ScriptedServer) -> None:
    credentials = Credentials("first", "secret")
    wire = direct_wire(server.endpoint_url, credentials=credentials)
    wire.send(GetObject("key"))
    credentials.access_key = "second"
    wire.send(GetObject("key"))
    first, second = (item.message.headers["authorization"] for item in server.arrived)
    assert "Credential=first/" in first
    assert "Credential=second/" in second
