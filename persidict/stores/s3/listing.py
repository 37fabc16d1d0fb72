"""Listing objects: page after page, in the order of names where that is asked for, or by groups."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from operator import itemgetter
from typing import Final

from persidict.stores.s3.marker import MARKER_SIZE, Stopwatch, is_marker, is_stale
from persidict.stores.s3.requests import S3Requests
from persidict.stores.s3.taking import sweep
from persidict.stores.s3.transport.errors import pages_in_a_circle
from persidict.stores.s3.transport.messages import ListObjectsV2, ListPage, Refusal
from persidict.stores.s3.transport.not_s3 import Circle
from persidict.stores.shared.parallel import Piece

_PAGE_SIZE: Final = 1000
_BEHIND_SLASH: Final = "0"
"""The character behind the slash: names below ``a/`` are less than ``a0``."""

_key_of: Final = itemgetter(0)
_size_of: Final = itemgetter(2)


class Listings:
    """Listings of what lies below a prefix of a bucket.

    Markers that somebody has left behind who was about to delete them are deleted, in two
    requests each.

    Args:
        requests: The bucket.
        prefix: What all names begin with.
    """

    def __init__(self, requests: S3Requests, prefix: str) -> None:
        self._requests = requests
        self._prefix = prefix

    def pages(
        self,
        prefix: str,
        start_after: str | None,
        delimiter: str | None,
        page_size: int | None,
    ) -> Iterator[ListPage]:
        """List names, one request for each 1000; see the port's `list`.

        From the second page on, the next one is asked for while one is read. With
        `start_after` all come in order: of a server that lists in another one, or may do so,
        everything below the prefix is listed and sorted here.
        """
        request = ListObjectsV2(
            self._prefix + prefix,
            None,
            delimiter,
            None if page_size is None else max(1, min(page_size, _PAGE_SIZE)),
        )
        if start_after is None:
            return self._pages(request)
        first = self._prefix + start_after
        if self._is_in_order():
            return self._pages(replace(request, start_after=first if start_after else None))
        return self._sorted(replace(request, max_keys=None), first)

    def names_of_groups(self, is_settled: Callable[[str], bool]) -> Iterator[str]:
        """List names, but of a group no more pages than it takes to settle it.

        A group are the names that are the same up to their first slash. Where a page ends in
        one that is settled, the next begins behind it. Beside the page that follows one of a
        single large group, an overview of all groups behind is asked for; if that page shows a
        large one, too, the others are read several at once, until some prove to be small. What
        comes of no use, of all that is asked ahead, is as many requests as may be under way,
        and 1, at most.

        Args:
            is_settled: Tells whether no more names of a group are wanted.
        """
        cut = len(self._prefix)
        request = ListObjectsV2(self._prefix)
        circle = Circle()
        width = self._requests.shared.pool.max_workers
        spare = width + 1
        is_large = False
        while True:
            asks_ahead = is_large and spare > 2  # with less, no two groups would be read at once
            both = [request, replace(request, delimiter="/")]
            pages = self._pages_at_once(both) if asks_ahead else []
            page, *overviews = pages or [self._page(request)]
            spare -= asks_ahead
            self._check(page, circle, request)
            last = page.objects[-1].key[cut:] if page.objects else ""
            yield from self._names_on(page)
            if page.next_token is None:
                return
            group, slash, _ = last.partition("/")
            if not (slash and is_settled(group) and self._is_in_order()):
                request = replace(request, continuation_token=page.next_token)
                is_large = False
                continue
            prefix = f"{self._prefix}{group}/"
            request = ListObjectsV2(self._prefix, _behind(prefix))
            is_large = self._shows_one_group(page, prefix)
            if is_large and overviews:
                start, useless = yield from self._names_ahead(
                    overviews[0], _behind(prefix), is_settled, min(width, spare)
                )
                if start is None:
                    return
                request = ListObjectsV2(self._prefix, start)
                spare -= useless
                is_large = False

    def _shows_one_group(self, page: ListPage, prefix: str) -> bool:
        """Tell whether most of a page is of one group, and nothing of another one."""
        cut = len(self._prefix)
        below = [item.key for item in page.objects if item.key.find("/", cut) >= 0]
        return 2 * len(below) > len(page.objects) and below[0].startswith(prefix)

    def _names_ahead(
        self, overview: ListPage, start: str, is_settled: Callable[[str], bool], width: int
    ) -> Generator[str, None, tuple[str | None, int]]:
        """List the groups that an overview tells, several at once, until some prove to be small.

        Returns:
            Behind which name to go on, None if there is no more; how many requests were useless.
        """
        cut = len(self._prefix)
        end = max([start, *map(_behind, overview.prefixes), *map(_key_of, overview.objects)])
        yield from self._names_on(overview)
        prefixes = [group for group in sorted(overview.prefixes) if not is_settled(group[cut:-1])]
        read = useless = 0
        while read < len(prefixes):
            requests = [ListObjectsV2(prefix) for prefix in prefixes[read : read + width]]
            pages = self._pages_at_once(requests)
            useless += len(requests) - len(pages)
            for request, page in zip(requests, pages, strict=False):
                useless += yield from self._names_of_group(request, page, is_settled)
                start = _behind(request.prefix)
            read += len(pages)
            if useless and read < len(prefixes):
                return start, useless
        return None if overview.next_token is None else end, useless

    def _names_of_group(
        self, request: ListObjectsV2, page: ListPage, is_settled: Callable[[str], bool]
    ) -> Generator[str, None, bool]:
        """List a group, from its first page on, until it is settled; return whether it ended."""
        group = request.prefix[len(self._prefix) : -1]
        circle = Circle()
        while True:
            self._check(page, circle, request)
            yield from self._names_on(page)
            if page.next_token is None or is_settled(group):
                return page.next_token is None
            request = replace(request, continuation_token=page.next_token)
            page = self._page(request)

    def _names_on(self, page: ListPage) -> list[str]:
        self._sort_out_markers(page)
        cut = len(self._prefix)
        return [item.key[cut:] for item in page.objects]

    def _is_in_order(self) -> bool:
        probe = self._requests.bucket.probe
        if self._requests.is_for_reading:  # to ask is to write
            return bool(probe.is_in_order)
        return probe.lists_in_order(self._requests, self._prefix)

    def _sorted(self, request: ListObjectsV2, start_after: str) -> Iterator[ListPage]:
        objects = []
        prefixes: set[str] = set()
        for page in self._pages(request):
            objects += [item for item in page.objects if item.key > start_after]
            prefixes.update(group for group in page.prefixes if group > start_after)
        objects.sort(key=_key_of)
        yield ListPage(objects, sorted(prefixes))

    def _pages(self, request: ListObjectsV2) -> Iterator[ListPage]:
        ahead: Piece[ListPage] | None = None
        circle = Circle()
        try:
            for number in count():
                page = self._page(request) if ahead is None else _result_of(ahead)
                self._check(page, circle, request)
                if page.next_token is not None:
                    request = replace(request, max_keys=None, continuation_token=page.next_token)
                    if number:  # whoever wants a second page will probably want them all
                        ahead = Piece(partial(self._page, request))
                        self._requests.shared.readers_ahead.begin(ahead.do)
                self._sort_out_markers(page)
                if page.next_token is None:
                    yield page
                    return
                yield page
        finally:
            if ahead is not None and not ahead.cancel():
                ahead.wait()

    def _page(self, request: ListObjectsV2) -> ListPage:
        try:
            return self._requests.perform(request)
        except Refusal as refusal:
            self._requests.fail(refusal, request.prefix)

    def _pages_at_once(self, requests: list[ListObjectsV2]) -> list[ListPage]:
        """Ask for pages at the same time; none is under way any more on return.

        A policy may allow what the plain listing asks for, and not this: what comes behind a
        page that is forbidden is left out.
        """
        pages = []
        for request, page in self._requests.perform_many((each, each) for each in requests):
            if isinstance(page, Refusal):
                if page.is_forbidden:
                    break
                self._requests.fail(page, request.prefix)
            pages.append(page)
        return pages

    def _check(self, page: ListPage, circle: Circle, request: ListObjectsV2) -> None:
        """Raise if the pages go round in a circle; take note of names that are out of order."""
        if page.next_token is not None and circle.is_closed_by(page.next_token):
            endpoint = self._requests.transport.endpoint
            refusal = pages_in_a_circle(request.operation, endpoint, page.next_token)
            self._requests.fail(refusal, request.prefix)
        probe = self._requests.bucket.probe
        if not probe.is_aws and probe.is_in_order is not False:
            keys = list(map(_key_of, page.objects))
            if keys != sorted(keys):
                probe.note_disorder()

    def _sort_out_markers(self, page: ListPage) -> None:
        """Leave out of a page what marks taken items, and delete what is left of dead deleters."""
        if MARKER_SIZE not in map(_size_of, page.objects):
            return
        items = []
        for item in page.objects:
            if not is_marker(item.etag, item.size):
                items.append(item)
            elif is_stale(item.last_modified, page.date):
                if not self._requests.is_for_reading:
                    sweep(self._requests, item.key, item.etag, self._prefix)
            else:
                self._requests.bucket.markers.put(item.key, Stopwatch())
        page.objects = items


def _behind(prefix: str) -> str:
    """Return what lies between the names of a group, and those behind."""
    return f"{prefix[:-1]}{_BEHIND_SLASH}"


def _result_of(piece: Piece[ListPage]) -> ListPage:
    piece.wait()
    return piece.result()
