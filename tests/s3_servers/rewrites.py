"""What servers and proxies make of replies: other clocks, other forms, no S3 at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime

from .http_messages import Message
from .s3_messages import S3Request

_PAGE = b"<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"


class ClockAhead:
    """A server whose `Date` runs ahead of its `Last-Modified`.

    Args:
        seconds: By how much.
    """

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def __call__(self, request: S3Request, reply: Message) -> Message:
        if "date" not in reply.headers:
            return reply
        date = parsedate_to_datetime(reply.headers["date"]) + self._ahead
        return reply.having("date", format_datetime(date, usegmt=True))


class Without:
    """A server that leaves some headers out of its replies to GET and HEAD.

    Args:
        headers: Their names, in lower case.
    """

    def __init__(self, *headers: str) -> None:
        self._headers = headers

    def __call__(self, request: S3Request, reply: Message) -> Message:
        if request.operation in ("GetObject", "HeadObject"):
            for header in self._headers:
                reply = reply.without(header)
        return reply


def chunked(request: S3Request, reply: Message) -> Message:
    """Send the bodies of objects in chunks, without telling how long they are."""
    if request.operation != "GetObject" or reply.status != 200 or not reply.body:
        return reply
    half = len(reply.body) // 2
    pieces = [piece for piece in (reply.body[:half], reply.body[half:]) if piece]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    bare = reply.without("content-length").having("transfer-encoding", "chunked")
    return replace(bare, body=body)


def html(request: S3Request, reply: Message) -> Message:
    """Answer everything with a page and status 200, as a proxy or another port may do."""
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: text/html",
        f"Content-Length: {len(_PAGE)}",
        "\r\n",
    ]
    body = b"" if reply.to_head else _PAGE
    head = "\r\n".join(lines).encode()
    return Message(head, lines[0], {"content-type": "text/html"}, body)
