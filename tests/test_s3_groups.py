"""First parts of keys: which requests a skip scan makes, and that it finds what is there."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any
from xml.sax.saxutils import escape

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from persidict import BasicS3Dict
from persidict.exceptions import BackendError
from persidict.stores.s3.marker import MARKER_SIZE, is_marker_etag, new_marker
from persidict.stores.s3.transport.messages import (
    ListedObject,
    ListObjectsV2,
    ListPage,
    Refusal,
    Request,
)
from persidict.stores.s3.transport.transport import Transport
from persidict.stores.shared.parallel import WorkerPool
from tests.s3_dicts import connect, short_pauses
from tests.s3_servers.s3_messages import parse_s3_request
from tests.s3_servers.scripted import Arrived, ScriptedServer, reply, scripted
from tests.s3_servers.scripted import error as error_of

__all__ = ["short_pauses"]

Dict = BasicS3Dict[Any]
Hook = Callable[[ListObjectsV2], object]

LAST = chr(0x10FFFF)


class Lister:
    """Lists names as S3 does.

    Args:
        names: What there is.
        page_size: How many entries a page has at most.
        markers: Those of the names that mark items that have been taken.
    """

    def __init__(
        self, names: list[str], page_size: int = 1000, markers: frozenset[str] = frozenset()
    ) -> None:
        self.names = sorted(names)
        self._page_size = page_size
        self._markers = markers

    def page(self, request: ListObjectsV2) -> ListPage:
        start = request.continuation_token or request.start_after or ""
        names, prefix = self.names, request.prefix
        objects: list[ListedObject] = []
        groups: list[str] = []
        limit = min(request.max_keys or self._page_size, self._page_size)
        position = max(bisect_left(names, prefix), bisect_right(names, start))
        last = ""
        while position < len(names) and names[position].startswith(prefix):
            if len(objects) + len(groups) == limit:
                return ListPage(objects, groups, last)
            name = last = names[position]
            end = name.find(request.delimiter, len(prefix)) if request.delimiter else -1
            if end < 0:
                objects.append(self._listed(name))
                position += 1
                continue
            groups.append(name[: end + 1])
            last = groups[-1] + LAST
            position = bisect_right(names, last)
        return ListPage(objects, groups)

    def _listed(self, name: str) -> ListedObject:
        if name in self._markers:
            return ListedObject(name, ETAG_OF_A_MARKER, MARKER_SIZE, 0.0)
        return ListedObject(name, '"1"', 1, 0.0)


def etag_of_a_marker() -> str:
    from hashlib import md5

    return f'"{md5(new_marker(chr(34) * 2), usedforsecurity=False).hexdigest()}"'  # type: ignore[arg-type]


ETAG_OF_A_MARKER: Any = etag_of_a_marker()
assert is_marker_etag(ETAG_OF_A_MARKER)


class Listed(Transport):
    """A bucket that is listed, and nothing else.

    Attributes:
        asked: All requests so far.
        under_way: How many there are now.
        hook: Called with each request before it is answered.
    """

    def __init__(self, lister: Lister, pool: WorkerPool, hook: Hook) -> None:
        super().__init__("listed", pool)
        self._lister = lister
        self.hook = hook
        self.asked: list[ListObjectsV2] = []
        self.under_way = 0
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return "http://127.0.0.1:9"

    def send(self, request: Request[Any]) -> Any:
        assert isinstance(request, ListObjectsV2)
        with self._lock:
            self.asked.append(request)
            self.under_way += 1
        try:
            self.hook(request)
            return self._lister.page(request)
        finally:
            with self._lock:
                self.under_way -= 1


def listed(
    names: list[str],
    *,
    page_size: int = 1000,
    max_concurrency: int = 64,
    markers: frozenset[str] = frozenset(),
    hook: Hook = lambda request: None,
) -> tuple[Dict, Listed]:
    """Return a dictionary below ``p/`` whose bucket is listed in order, and its transport."""
    d = connect(
        "http://127.0.0.1:9",
        create_bucket=False,
        root_prefix="p",
        max_concurrency=max_concurrency,
        boto_config={"retries": {"total_max_attempts": 2}},
    )
    requests = d._s3_store._requests
    pool = requests.shared.pool
    placed = Lister([f"p/{name}" for name in names], page_size, frozenset(markers))
    transport = Listed(placed, pool, hook)
    requests._transport = transport
    requests.bucket.probe.is_in_order = True
    return d, transport


def group(name: str, count: int, kind: str = "{:05}.pkl") -> list[str]:
    return [f"{name}/{kind.format(n)}" for n in range(count)]


def groups(count: int, size: int, start: int = 0) -> list[str]:
    return [name for n in range(start, start + count) for name in group(f"g{n:04}", size)]


def parts_of(d: Dict, names: list[str]) -> set[str]:
    """Return what a listing of everything would show."""
    keys = map(d._naming.key_of, names)
    return {key.strings[0] for key in keys if key is not None}


def requests_one_after_the_other(d: Dict, transport: Listed) -> int:
    """Count the requests of a scan that asks for nothing ahead."""
    seen: set[str] = set()
    request = ListObjectsV2("p/")
    for count in itertools.count(1):
        page = transport._lister.page(request)
        names = [item.key.removeprefix("p/") for item in page.objects]
        seen |= parts_of(d, names)
        if page.next_token is None:
            return count
        first, slash, _ = names[-1].partition("/")
        if slash and first in seen:
            request = ListObjectsV2("p/", f"p/{first}0")
        else:
            request = ListObjectsV2("p/", continuation_token=page.next_token)
    raise AssertionError("unreachable")


# ---------------------------------------------------------------------- how many requests

FOREIGN = "{:05}.txt"

BUCKETS: dict[str, tuple[list[str], int, int]] = {
    "nothing": ([], 1, 1),
    "10 small ones": (groups(10, 100), 1, 1),
    "10 large ones": (groups(10, 2000), 11, 11),
    "10 of more than half a page": (groups(10, 600), 6, 6),
    "100 large ones": (groups(100, 1100), 101, 101),
    "1 large one": (groups(1, 2000), 3, 2),
    "2 large ones": (groups(2, 2000), 3, 3),
    "a page and no more": (groups(1, 1000), 1, 1),
    "1 large one and 300 tiny ones": (groups(1, 2000) + groups(300, 1, 1), 3, 2),
    "2 large ones and 300 tiny ones": (groups(2, 2000) + groups(300, 1, 2), 3 + 64 + 1, 3),
    "2 large ones and 30 tiny ones": (groups(2, 2000) + groups(30, 1, 2), 3 + 30, 3),
    "large ones, each beside an item of its name, which tells as much": (
        groups(10, 2000) + [f"g{n:04}.pkl" for n in range(10)],
        3,
        11,
    ),
    "large ones, each behind an object of its name": (
        groups(10, 2000) + [f"g{n:04}.csv" for n in range(10)],
        11,
        11,
    ),
    "1 group of foreign objects": (group("g", 2500, FOREIGN), 3, 3),
    "10 groups of foreign objects": (
        [name for n in range(10) for name in group(f"g{n}", 2000, FOREIGN)],
        20,
        20,
    ),
    "a group of foreign objects between large ones": (
        groups(3, 2000) + group("g0001x", 2500, FOREIGN),
        7,
        6,
    ),
    "2 000 single items": ([f"{n:05}.pkl" for n in range(2000)], 2, 2),
}


@pytest.mark.parametrize("name", BUCKETS)
def test_the_number_of_requests_is(name: str) -> None:
    names, expected, before = BUCKETS[name]
    d, transport = listed(names)
    assert d._first_parts() == parts_of(d, names)
    assert requests_one_after_the_other(d, transport) == before
    assert len(transport.asked) == expected
    assert transport.under_way == 0


def test_one_request_at_a_time_is_all_that_may_be_under_way() -> None:
    d, transport = listed(groups(10, 2000), max_concurrency=1)
    assert len(d.subdicts()) == 10
    assert len(transport.asked) == 11
    assert not [request for request in transport.asked if request.delimiter]


@pytest.mark.parametrize("max_concurrency", [2, 3, 8])
def test_large_and_small_groups_in_turn_cost_no_more_than_what_is_spare(
    max_concurrency: int,
) -> None:
    names = []
    for n in range(0, 400, 4):
        names += groups(2, 25, n) + groups(2, 2, n + 2)
    d, transport = listed(names, page_size=10, max_concurrency=max_concurrency)
    assert d._first_parts() == parts_of(d, names)
    limit = requests_one_after_the_other(d, transport) + max_concurrency + 1
    assert len(transport.asked) <= limit


SMALL_PAGES: dict[str, tuple[list[str], int, int]] = {
    "single names and little of a group on each page": (
        [
            name
            for start in "acm"
            for name in [*(f"{start}{n}.txt" for n in range(9)), *group(f"{start}z", 5)]
        ],
        4,
        4,
    ),
    "a large group of foreign objects behind a large one": (
        groups(1, 20) + group("h", 35, FOREIGN),
        6,
        5,
    ),
    "single names behind large groups, more than an overview shows": (
        groups(2, 20) + [f"h{n:02}.txt" for n in range(29)],
        5,
        5,
    ),
    "more small groups than what is spare allows for": (
        groups(2, 25) + groups(5, 1, 2) + groups(6, 25, 7) + groups(40, 1, 13),
        20,
        12,
    ),
}


@pytest.mark.parametrize("name", SMALL_PAGES)
def test_the_number_of_requests_for_pages_of_ten_is(name: str) -> None:
    names, expected, before = SMALL_PAGES[name]
    d, transport = listed(names, page_size=10, max_concurrency=8)
    assert d._first_parts() == parts_of(d, names)
    assert requests_one_after_the_other(d, transport) == before
    assert len(transport.asked) == expected


def test_a_truncated_overview_is_gone_on_behind() -> None:
    names = [*groups(35, 25), "g0012.pkl", "g0020-.txt", "h.pkl", "i.txt"]
    d, transport = listed(names, page_size=10)
    assert d._first_parts() == parts_of(d, names)
    assert len([request for request in transport.asked if request.delimiter]) == 3 + 1
    assert len(transport.asked) <= requests_one_after_the_other(d, transport) + 4


# ---------------------------------------------------------------------- at the same time


def xml_of(page: ListPage) -> bytes:
    entries = [
        f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00Z</LastModified>"
        f"<ETag>{escape(etag)}</ETag><Size>{size}</Size></Contents>"
        for key, etag, size, _ in page.objects
    ]
    entries += [
        f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>"
        for prefix in page.prefixes
    ]
    entries.append(f"<IsTruncated>{str(page.next_token is not None).lower()}</IsTruncated>")
    if page.next_token is not None:
        entries.append(f"<NextContinuationToken>{page.next_token}</NextContinuationToken>")
    return f"<ListBucketResult>{''.join(entries)}</ListBucketResult>".encode()


def request_of(arrived: Arrived) -> ListObjectsV2:
    query = parse_s3_request(arrived.method, arrived.target, {}).query
    return ListObjectsV2(
        query.get("prefix", ""),
        query.get("start-after"),
        query.get("delimiter"),
        int(query.get("max-keys", 1000)),
        query.get("continuation-token"),
    )


class Stage:
    """A server of a bucket that is listed, and a dictionary below ``p/`` on it.

    Attributes:
        hook: May answer a request in the place of the lister.
    """

    def __init__(self, server: ScriptedServer, transport: str) -> None:
        self._server = server
        self.hook: Callable[[ListObjectsV2], bytes | None] = lambda request: None
        self.lister = Lister([])
        server.answer = self._answer
        self.d = connect(
            server.endpoint_url,
            create_bucket=False,
            transport=transport,
            root_prefix="p",
            boto_config={"retries": {"total_max_attempts": 2}},
        )
        self.d._s3_store._requests.bucket.probe.is_in_order = True

    def _answer(self, arrived: Arrived) -> bytes:
        request = request_of(arrived)
        own = self.hook(request)
        return own or reply(xml_of(self.lister.page(request)), "Content-Type: application/xml")

    def put(self, names: list[str], page_size: int = 10) -> None:
        self.lister = Lister([f"p/{name}" for name in names], page_size)

    @property
    def arrived(self) -> list[ListObjectsV2]:
        return [request_of(request) for request in self._server.arrived]


@pytest.fixture(params=["auto", "botocore"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with scripted(lambda request: reply()) as server:
        yield Stage(server, request.param)


def test_what_is_asked_ahead_is_under_way_at_the_same_time(stage: Stage) -> None:
    pair, others = threading.Barrier(2), threading.Barrier(8)

    def meet(request: ListObjectsV2) -> None:
        if request.start_after == "p/g00000":
            pair.wait(10)
        elif request.prefix != "p/":
            others.wait(10)

    stage.put(groups(10, 25))
    stage.hook = meet
    assert stage.d.subdicts().keys() == {f"g{n:04}" for n in range(10)}
    assert len(stage.arrived) == 11


def test_no_more_are_under_way_than_may_be() -> None:
    most, lock = 0, threading.Lock()

    def look(request: ListObjectsV2) -> None:
        nonlocal most
        with lock:
            most = max(most, transport.under_way)

    d, transport = listed(groups(40, 25), page_size=10, max_concurrency=4, hook=look)
    assert len(d.subdicts()) == 40
    assert most <= 4


@pytest.mark.parametrize("where", ["beside a page", "in a group", "in a further page"])
@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (400, "InvalidArgument"), (404, "NoSuchBucket")]
)
def test_an_error_of_what_is_asked_ahead_is_that_of_a_listing(
    where: str, status: int, code: str, stage: Stage, short_pauses: None
) -> None:
    def fail(request: ListObjectsV2) -> bytes | None:
        fails = {
            "beside a page": request.delimiter is not None,
            "in a group": request.prefix == "p/g0005/",
            "in a further page": request.prefix == "p/f/" and bool(request.continuation_token),
        }
        return error_of(status, code) if fails[where] else None

    stage.put(groups(10, 25, 0) + group("e", 25) + group("d", 25) + group("f", 25, FOREIGN))
    stage.hook = fail
    bucket = stage.d._s3_store._requests.bucket
    bucket.is_known_to_exist = True
    with pytest.raises(ClientError) as caught:
        stage.d.subdicts()
    assert caught.value.response["Error"]["Code"] == code
    assert bucket.is_known_to_exist is (code != "NoSuchBucket")
    place = {"beside a page": "p/", "in a group": "p/g0005/", "in a further page": "p/f/"}[where]
    told = f"ListObjectsV2, bucket {stage.d.bucket_name!r}, key {place!r}"
    assert [note for note in caught.value.__notes__ if told in note]


@pytest.mark.parametrize("forbidden", ["delimiter", "prefix", "some"])
def test_what_a_policy_forbids_to_ask_ahead_is_done_without(forbidden: str, stage: Stage) -> None:
    def refuse(request: ListObjectsV2) -> bytes | None:
        is_refused = {
            "delimiter": request.delimiter is not None,
            "prefix": request.prefix != "p/",
            "some": request.prefix > "p/g0005",
        }
        return error_of(403, "AccessDenied") if is_refused[forbidden] else None

    names = groups(10, 25)
    stage.put(names)
    stage.hook = refuse
    assert stage.d.subdicts().keys() == {f"g{n:04}" for n in range(10)}
    assert len(stage.arrived) <= 11 + 65


def test_who_may_list_nothing_is_told_so_as_ever(stage: Stage) -> None:
    stage.put(groups(10, 25))
    count = itertools.count()
    stage.hook = lambda request: error_of(403, "AccessDenied") if next(count) else None
    with pytest.raises(ClientError, match="AccessDenied") as caught:
        stage.d.subdicts()
    assert "ListObjectsV2" in caught.value.__notes__[0]
    assert len(stage.arrived) <= 1 + 2 + 1  # the overview may have been broken off before it left


@pytest.mark.parametrize("ends", ["close", "throw"])
def test_nothing_is_under_way_wherever_a_listing_is_left(ends: str) -> None:
    names = groups(10, 25) + group("f", 25, FOREIGN) + ["single.pkl"]
    for moment in range(500):
        d, transport = listed(names, page_size=10, max_concurrency=4)
        seen: set[str] = set()
        listing = d._s3_store.names_of_groups(seen.__contains__)
        for name in itertools.islice(listing, moment):
            seen |= parts_of(d, [name])
            assert transport.under_way == 0
        count = len(transport.asked)
        if ends == "close":
            listing.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises(KeyError):
                listing.throw(KeyError())  # type: ignore[attr-defined]
        assert next(listing, None) is None
        assert (transport.under_way, len(transport.asked)) == (0, count)
        if seen == parts_of(d, names):
            return
    raise AssertionError("it does not end")


def test_an_error_leaves_nothing_under_way() -> None:
    gate = threading.Barrier(4)

    def fail(request: ListObjectsV2) -> None:
        if request.prefix != "p/":
            gate.wait(10)  # all of them have begun
            raise refusal if request.prefix == "p/g0003/" else slow

    refusal = Refusal("ListObjectsV2", 400, "InvalidArgument", lambda: ValueError("the first"))
    slow = Refusal("ListObjectsV2", 400, "InvalidArgument", lambda: ValueError("another"))
    d, transport = listed(groups(10, 25), page_size=10, max_concurrency=4, hook=fail)
    with pytest.raises(ValueError):
        d.subdicts()
    assert transport.under_way == 0


# ---------------------------------------------------------------------- what is shown


def test_markers_are_not_taken_for_items_wherever_they_are_seen() -> None:
    names = groups(4, 25) + group("taken", 25) + ["single.pkl", "other.pkl"]
    markers = {f"p/{name}" for name in [*group("taken", 25), "single.pkl"]}
    d, transport = listed(names, page_size=10, markers=frozenset(markers))
    assert d._first_parts() == {"g0000", "g0001", "g0002", "g0003", "other"}
    assert [request for request in transport.asked if request.prefix == "p/taken/"]
    assert markers <= {key for key in markers if key in d._s3_store._requests.bucket.markers}


@pytest.mark.parametrize("known", [None, False])
def test_nothing_is_asked_ahead_where_the_order_is_not_known_to_who_may_only_read(
    known: bool | None,
) -> None:
    d, transport = listed(groups(10, 25), page_size=10)
    requests = d._s3_store._requests
    requests.bucket.probe.is_in_order = known
    d._s3_store._requests = requests.for_reading()
    assert len(d.subdicts()) == 10
    assert len(transport.asked) == 25


def test_pages_of_a_group_that_go_round_in_a_circle_end_the_listing(stage: Stage) -> None:
    def turn(request: ListObjectsV2) -> bytes | None:
        if request.prefix != "p/f/":
            return None
        number = int(request.continuation_token or 0)
        page = stage.lister.page(ListObjectsV2("p/f/"))
        page.next_token = str(number % 5 + 1)
        return reply(xml_of(page), "Content-Type: application/xml")

    stage.hook = turn
    stage.put(group("a", 25) + group("b", 25) + group("f", 25, FOREIGN))
    with pytest.raises(BackendError, match="comes again"):
        stage.d.subdicts()
    assert len(stage.arrived) < 30


NAMES = ["", "a", "a-b", "a.b", "a0", "ab", "b", "b!", "\u00e9", "z"]
KINDS = ["{:03}.pkl", "{:03}.txt", "{:03}/x.pkl", "bad part {:03}.pkl", "{:03}/"]
SINGLES = [
    "a.pkl",
    "a-b.pkl",
    "a/",
    "a0",
    "a.txt",
    "b.pkl",
    "b/",
    "z.pkl",
    "bad part.pkl",
    "a0.pkl",
]

blocks = st.lists(
    st.tuples(
        st.sampled_from(NAMES), st.sampled_from([1, 2, 7, 25]), st.lists(st.sampled_from(KINDS))
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(
    blocks=blocks,
    singles=st.sets(st.sampled_from(SINGLES)),
    many=st.integers(0, 30),
    page_size=st.integers(1, 8),
    max_concurrency=st.integers(1, 5),
)
def test_first_parts_are_those_of_a_listing_of_everything(
    blocks: list[tuple[str, int, list[str]]],
    singles: set[str],
    many: int,
    page_size: int,
    max_concurrency: int,
) -> None:
    names = set(singles) | set(groups(many, 12, 0))
    for name, count, kinds in blocks:
        names |= {each for kind in kinds or KINDS[:1] for each in group(name, count, kind)}
    d, transport = listed(sorted(names), page_size=page_size, max_concurrency=max_concurrency)
    assert d._first_parts() == parts_of(d, sorted(names))
    limit = requests_one_after_the_other(d, transport) + max_concurrency + 1
    assert len(transport.asked) <= limit
