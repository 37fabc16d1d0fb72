"""Objects in a bucket: the store on S3 and everything that speaks its protocol."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import BinaryIO, Final, Literal

from persidict.checks import check_int
from persidict.exceptions import ObjectNotFound, PreconditionFailed, without_frames
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagIfExists, ETagValue
from persidict.stores.object_store import (
    ANY_VERSION,
    NOT_MODIFIED,
    AnyVersion,
    Buffer,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
    OneOfMany,
    Read,
    Unread,
    reported,
)
from persidict.stores.s3.capabilities import ABILITIES, S3Capabilities, Support
from persidict.stores.s3.copy import Copy, md5_in
from persidict.stores.s3.delete import Deletion, delete_many
from persidict.stores.s3.download import (
    DEFAULT_LARGE_OBJECT_SIZE,
    range_size,
    read_large,
)
from persidict.stores.s3.listing import Listings
from persidict.stores.s3.marker import (
    SECONDS_TO_WATCH,
    is_marker_etag,
)
from persidict.stores.s3.open_uploads import OpenUploads
from persidict.stores.s3.put import Put
from persidict.stores.s3.requests import PAUSE_SECONDS, S3Requests, is_etag, pause
from persidict.stores.s3.stream import (
    READ_ATTEMPTS,
    BodyTrouble,
    Boundless,
    ObjectMoved,
    boundless,
    open_stream,
    read_all,
)
from persidict.stores.s3.taking import can_take
from persidict.stores.s3.transport.client import SharedClient
from persidict.stores.s3.transport.errors import concerns_one_object
from persidict.stores.s3.transport.etag_form import is_aws_endpoint
from persidict.stores.s3.transport.messages import (
    CopyObject,
    GetObject,
    ListPage,
    PutObject,
    Refusal,
    Reply,
)
from persidict.stores.s3.transport.options import NO_OPTIONS, RequestOptions
from persidict.stores.s3.transport.transport import Transport
from persidict.stores.s3.upload import put_large
from persidict.stores.s3.waiting import wait_for_deletion
from persidict.stores.shared.parallel import map_in_order
from persidict.stores.site import Site
from persidict.traffic import Traffic
from persidict.traits import Traits

_Wanted = tuple[str | ObjectInfo, ETagValue | None]

_PARALLEL_READ_ATTEMPTS: Final = 3
_SIZE_TOLERANCE: Final = 4
"""How many times as large as in one format a value may be in another one."""


class S3Store(ObjectStore):
    """Objects below a prefix of a bucket.

    Conditions are checked and acted upon by the server in one step, as far as it enforces
    them (see `capabilities`). ETags are S3's own, in quotes. Every operation takes one
    request, unless it says otherwise.

    Args:
        shared: The client and what goes with it.
        bucket_name: The bucket.
        prefix: What all names of this store begin with in the bucket.
        content_type: The media type of what is written.
        create_bucket: Whether the bucket is created when it is missing. Looking for it
            takes one request, once in a process.
        large_object_size: Objects of more bytes are read in parallel ranges and written in
            parallel parts.
        options: What goes with every request.

    Raises:
        Exception: The transport's own: the bucket cannot be found or created.
    """

    traits = Traits(
        reads_are_cheap=False, listing_brings_versions=True, back_off_seconds=PAUSE_SECONDS
    )

    def __init__(
        self,
        shared: SharedClient,
        *,
        bucket_name: str,
        prefix: str = "",
        content_type: str = "application/octet-stream",
        create_bucket: bool = True,
        large_object_size: int = DEFAULT_LARGE_OBJECT_SIZE,
        options: RequestOptions = NO_OPTIONS,
    ) -> None:
        self._large_object_size = check_int("large_object_size", large_object_size, at_least=1)
        self._requests = S3Requests(
            shared, bucket_name, create_bucket=create_bucket, options=options
        )
        self._prefix = prefix
        self._content_type = content_type

    @property
    def shared(self) -> SharedClient:
        """The client and what goes with it."""
        return self._requests.shared

    @property
    def transport(self) -> Transport:
        """How requests travel; ``repr`` tells which wire it is and why."""
        return self._requests.transport

    @property
    def bucket_name(self) -> str:
        """The bucket."""
        return self._requests.bucket_name

    @property
    def prefix(self) -> str:
        """What all names of this store begin with in the bucket."""
        return self._prefix

    @property
    def site(self) -> Site:
        """Where the objects lie: below a prefix of a bucket, which has one name in all of AWS."""
        endpoint = self.transport.endpoint
        where = "aws" if is_aws_endpoint(endpoint) else endpoint.rstrip("/")
        return Site(("s3", where, self.bucket_name), self._prefix)

    @property
    def capabilities(self) -> S3Capabilities:
        """What the server enforces; asks it what has not been asked yet.

        At most 8 requests, once in a process for each endpoint and bucket; none on AWS.
        """
        requests = self._requests
        found = {}
        try:
            for ability in ABILITIES:
                found[ability] = requests.support(ability, self._prefix)
            deletes_by_marker = can_take(requests, self._prefix)
        except Refusal as refusal:
            requests.fail(refusal)
        # what these credentials may not find out is not supported, for them
        return S3Capabilities(
            **found,
            unquoted_etags=bool(requests.transport.unquoted_etags),
            deletes_by_marker=deletes_by_marker,
        )

    def head(self, name: str) -> ObjectInfo:
        """Look at an object without its bytes; see the port."""
        look = self._requests.head(self._prefix + name)
        return ObjectInfo(name, look.etag, look.size, look.last_modified)

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        """Read an object; see the port.

        A body that breaks off, is too short or does not match the checksum that the server
        sent is read again, a bounded number of times. A large object takes more requests, see
        `read_large`; one that is replaced meanwhile is read anew, as it is then. Of one that
        was large before, the first request asks for the beginning alone, because servers get
        ready to send all that they are asked for.
        """
        return self._get(name, if_none_match, None)

    def _get(
        self, name: str, if_none_match: ETagValue | None, answer: Reply | Refusal | None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        """Read an object, of which an answer may be there already."""
        key = self._prefix + name
        known = if_none_match if if_none_match is not None and is_etag(if_none_match) else None
        attempt = 0
        is_boundless = False
        while True:
            attempt += 1
            at_first: tuple[int, int] | None = None
            try:
                if answer is None or (isinstance(answer, Refusal) and answer.is_missing_bucket):
                    at_first = self._range_at_first(key, attempt, is_boundless=is_boundless)
                    request = GetObject(key, at_first, if_none_match=known)
                    answer = self._requests.perform(request)
                if isinstance(answer, Refusal):
                    raise answer
                reply, answer = answer, None
            except Refusal as refusal:
                answer = None
                if refusal.is_unsatisfiable and at_first is not None:
                    if is_boundless:
                        self._requests.fail(boundless(self._requests), key)
                    # there is no range of an empty object
                    self._requests.bucket.large_names.discard(key)
                    continue
                if refusal.is_unchanged and known is not None:
                    return NOT_MODIFIED
                self._requests.fail_to_read(refusal, key)
            self._requests.rule_out_marker(key, reply)
            try:
                data = self._bytes_of(key, reply, attempt)
            except Boundless:
                if is_boundless:
                    self._requests.fail(boundless(self._requests), key)
                is_boundless = True  # a range is answered with the size of the whole
                continue
            except BodyTrouble as trouble:
                if attempt >= READ_ATTEMPTS:
                    self._requests.fail(trouble.refusal, key)
                pause(attempt)
                continue
            except ObjectMoved:
                pause(attempt)
                continue
            look = self._requests.take_in(key, reply)
            return data, ObjectInfo(name, look.etag, len(data), look.last_modified)

    def _range_at_first(
        self, key: str, attempt: int, *, is_boundless: bool
    ) -> tuple[int, int] | None:
        """Return what to ask for of an object that was large when it was seen last."""
        is_read_in_parallel = (
            key in self._requests.bucket.large_names
            and attempt <= _PARALLEL_READ_ATTEMPTS
            and self.shared.pool.max_workers > 1
        )
        if is_read_in_parallel or is_boundless:
            return 0, range_size(self._large_object_size)
        return None

    def _bytes_of(self, key: str, reply: Reply, attempt: int) -> Buffer:
        size = reply.size or 0
        is_large = size > self._large_object_size
        first, behind, _ = reply.content_range or (0, size, size)
        is_cut = size > (behind - first if reply.content_length is None else reply.content_length)
        if is_cut or (is_large and attempt <= _PARALLEL_READ_ATTEMPTS):
            self._requests.bucket.large_names.put(key, None)
            return read_large(self._requests, key, reply, large_object_size=self._large_object_size)
        if not is_large:
            self._requests.bucket.large_names.discard(key)
        return read_all(reply)

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading, in a request for each MiB; see `open_stream`.

        When the object changes meanwhile, reading on behind the first MiB raises OSError.
        """
        return open_stream(self._requests, self._prefix + name, self.location(name))

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        """Write an object whole, or not at all; see the port.

        A write whose reply got lost is looked for in the object's lineage before anything
        is reported. If that does not tell what became of it, the server's or transport's own
        exception is raised, with a note that says so. A large object takes more requests, see
        `put_large`.

        Raises:
            PreconditionFailed: The condition does not hold; nothing was written.
            BackendError: The server does not enforce the condition.
        """
        expected: ETagIfExists | None = if_match if if_none_match is None else ITEM_NOT_AVAILABLE
        self._refuse_impossible(name, if_match)
        key = self._prefix + name
        if expected is None and key in self._requests.bucket.markers:
            self._await_deletion(key)
        if len(data) > self._large_object_size:
            self._requests.bucket.large_names.put(key, None)
            return put_large(
                self._requests,
                key,
                data,
                expected,
                content_type=self._content_type,
                prefix=self._prefix,
            )
        return Put(self._requests, key, expected).write(data, self._content_type, self._prefix)

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        """Delete an object; see the port.

        Where the server enforces conditions on PUT and not on DELETE, the version is replaced
        by a marker, under its ETag, and the marker deleted: two requests, and one more to look
        for the version with ``"*"``. What is written without a condition in between is deleted
        unseen. Where it enforces neither, this looks, compares and deletes.
        """
        deletion = Deletion(self._requests, self._prefix + name, self._prefix)
        if if_match is None:
            deletion.unconditionally()
        elif if_match == ANY_VERSION:
            deletion.of_any()
        else:
            if not is_etag(if_match) or is_marker_etag(if_match):
                self.head(name)
            self._refuse_impossible(name, if_match)
            deletion.of_version(ETagValue(if_match))

    def _await_deletion(self, key: str) -> None:
        """Let a deletion end that has been seen under way: it would take what comes meanwhile."""
        seen = self._requests.bucket.markers.get(key)
        if seen is not None and seen.seconds() < SECONDS_TO_WATCH:
            with suppress(ObjectNotFound):
                look = self._requests.look(key)
                if look.is_marker:
                    wait_for_deletion(self._requests, key, look)
        self._requests.bucket.markers.discard(key)

    def _refuse_impossible(self, name: str, if_match: str | None) -> None:
        """Raise PreconditionFailed for what can be no ETag, or that of no item."""
        if if_match is not None and (not is_etag(if_match) or is_marker_etag(if_match)):
            raise PreconditionFailed(f"{if_match!r} is no version of {self.location(name)}")

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        """List objects, one request for each 1000; see the port.

        From the second page on, the next one is asked for while one is read. Markers that
        somebody has left behind who was about to delete them are deleted, in two requests each.

        With `start_after`, a server that is not AWS is asked once, with 3 requests, whether it
        lists in the order of names; if not, everything below the prefix is listed.
        """
        cut = len(self._prefix)
        for page in self._pages(prefix, start_after, delimiter, page_size):
            entries: list[ObjectInfo | CommonPrefix] = [
                # HEAD and GET tell no more than whole seconds
                ObjectInfo(key[cut:], etag, size, modified // 1)
                for key, etag, size, modified in page.objects
            ]
            if page.prefixes:
                entries.extend(CommonPrefix(group[cut:]) for group in page.prefixes)
                entries.sort(key=lambda entry: entry[0])
            yield from entries

    def names(
        self, prefix: str = "", *, start_after: str | None = None, page_size: int | None = None
    ) -> Iterator[str]:
        """List names alone; see `list`."""
        cut = len(self._prefix)
        for page in self._pages(prefix, start_after, None, page_size):
            for item in page.objects:
                yield item[0][cut:]

    def names_of_groups(self, is_settled: Callable[[str], bool]) -> Iterator[str]:
        """List names, but of a group no more pages than it takes to settle it; see `Listings`.

        A group are the names that are the same up to their first slash. Names may come twice,
        and those of groups that are read at once before single ones that are less.

        Args:
            is_settled: Tells whether no more names of a group are wanted.
        """
        return Listings(self._requests, self._prefix).names_of_groups(is_settled)

    def _pages(
        self,
        prefix: str,
        start_after: str | None,
        delimiter: str | None,
        page_size: int | None,
    ) -> Iterator[ListPage]:
        listings = Listings(self._requests, self._prefix)
        return listings.pages(prefix, start_after, delimiter, page_size)

    def get_many(self, entries: Iterable[str | ObjectInfo]) -> Iterator[Read | Unread]:
        """Read many objects at the same time, in the order given; see the port.

        Those that are known to be large are read in parallel ranges, a few at a time.
        """
        for name, found in self.get_many_unless_known((entry, None) for entry in entries):
            if isinstance(found, Exception):
                yield name, found, None
            elif found is not None:
                assert not isinstance(found, NotModified)
                yield name, *found

    def get_many_unless_known(self, wanted: Iterable[_Wanted]) -> Iterator[tuple[str, OneOfMany]]:
        """Read many objects, but for versions that the caller has; see the optional port."""
        for are_large, group in groupby(wanted, self._is_known_to_be_large):
            if are_large:
                yield from map_in_order(self._get_if_there, group, self.shared.pool)
            else:
                yield from self._get_each(group)

    def _is_known_to_be_large(self, wanted: _Wanted) -> bool:
        entry = wanted[0]
        if isinstance(entry, str):
            return self._prefix + entry in self._requests.bucket.large_names
        return entry.size > self._large_object_size

    def _get_each(self, wanted: Iterable[_Wanted]) -> Iterator[tuple[str, OneOfMany]]:
        def planned() -> Iterator[tuple[tuple[str, ETagValue | None], GetObject]]:
            for entry, known in wanted:
                name = _name_of(entry)
                if known is not None and not is_etag(known):
                    known = None
                yield (name, known), GetObject(self._prefix + name, if_none_match=known)

        for (name, known), answer in self._requests.perform_many(planned()):
            yield name, self._outcome_of(partial(self._get, name, known, answer))

    def _get_if_there(self, wanted: _Wanted) -> tuple[str, OneOfMany]:
        entry, known = wanted
        name = _name_of(entry)
        if not isinstance(entry, str) and entry.size > self._large_object_size:
            self._requests.bucket.large_names.put(self._prefix + name, None)
        return name, self._outcome_of(partial(self.get, name, if_none_match=known))

    def concerns_one_object(self, error: Exception) -> bool:
        return concerns_one_object(error)

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        """Write many objects at the same time, each atomically; see the port.

        Large ones are written in parallel parts, a few at a time.
        """
        put_alone = partial(self._put_and_report, if_none_match=if_none_match)
        for go_alone, group in groupby(items, partial(self._goes_alone, if_none_match)):
            if go_alone:
                yield from map_in_order(put_alone, group, self.shared.pool)
            else:
                yield from self._put_each(group, if_none_match)

    def _goes_alone(self, if_none_match: AnyVersion | None, item: tuple[str, Buffer]) -> bool:
        """Tell whether an item is large, or comes under a condition that nobody enforces."""
        if len(item[1]) > self._large_object_size:
            return True
        if if_none_match is None:
            return self._prefix + item[0] in self._requests.bucket.markers
        try:
            support = self._requests.support("put_if_none_match", self._prefix)
        except Refusal:
            return True
        return support is not Support.ENFORCED

    def _put_each(
        self, items: Iterable[tuple[str, Buffer]], if_none_match: AnyVersion | None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        expected = None if if_none_match is None else ITEM_NOT_AVAILABLE

        def planned() -> Iterator[tuple[tuple[str, Put, PutObject], PutObject]]:
            for name, data in items:
                put = Put(self._requests, self._prefix + name, expected)
                request = put.plan(data, self._content_type, self._prefix)
                yield (name, put, request), request

        def settle(
            write: tuple[str, Put, PutObject], answer: Reply | Refusal
        ) -> tuple[str, ETagValue | Exception]:
            name, put, request = write
            return name, reported(partial(put.settle, request, answer))

        return self._requests.settle_many(planned(), settle)

    def interrupted_writes(self, sizes: Mapping[str, int]) -> Callable[[Collection[str]], None]:
        """Look for uploads in parts, in one request if any object may be large.

        See `LeavesPartsBehind`.
        """
        small = self._large_object_size // _SIZE_TOLERANCE
        keys = [self._prefix + name for name, size in sizes.items() if not 0 < size < small]
        uploads = OpenUploads(self._requests, keys)
        return lambda written: uploads.end_stalled({self._prefix + name for name in written})

    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether another store is reached with the same client; see `CopiesInside`."""
        return isinstance(source, S3Store) and source.shared is self.shared

    def copy_many(
        self, source: ObjectStore, names: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, ETagValue | Exception | None]]:
        """Copy many objects at the same time, in one request each; see `CopiesInside`."""
        assert isinstance(source, S3Store)
        source_owner = self._requests.options.owner_of_source(source._requests.options)

        def planned() -> Iterator[tuple[tuple[str, Copy], CopyObject]]:
            for source_name, name in names:
                copy = Copy(
                    self._requests,
                    source.bucket_name,
                    source.prefix + source_name,
                    self._prefix + name,
                    self._content_type,
                    source_owner,
                )
                yield (name, copy), copy.request

        def settle(
            write: tuple[str, Copy], answer: Reply | Refusal
        ) -> tuple[str, ETagValue | Exception | None]:
            name, copy = write
            try:
                return name, copy.settle(answer)
            except Exception as error:  # reported to the caller, item by item
                return name, without_frames(error)

        return self._requests.settle_many(planned(), settle)

    def md5_of(self, info: ObjectInfo) -> str | None:
        """Return the MD5 that the ETag of an object written in one piece is; see `TellsMD5`."""
        return md5_in(info.etag)

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        """Delete many objects, a thousand with each request; see the port."""
        cut = len(self._prefix)
        keys = (self._prefix + name for name in names)
        for key, error in delete_many(self._requests, keys):
            yield key[cut:], error

    def traffic(self) -> Traffic:
        """Tell what has passed between this store, its scopes, and the bucket."""
        return self._requests.traffic.traffic()

    def scoped(self, prefix: str) -> S3Store:
        """Return the same store seen from below a prefix; no request."""
        below = object.__new__(S3Store)
        below._requests = self._requests
        below._prefix = self._prefix + prefix
        below._content_type = self._content_type
        below._large_object_size = self._large_object_size
        return below

    def for_reading(self) -> S3Store:
        reader = self.scoped("")
        reader._requests = self._requests.for_reading()
        return reader

    def location(self, name: str) -> str:
        """Say for a person where an object lies."""
        return f"s3://{self.bucket_name}/{self._prefix}{name}"


def _name_of(entry: str | ObjectInfo) -> str:
    return entry if isinstance(entry, str) else entry.name
