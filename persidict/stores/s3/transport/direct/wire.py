"""The direct wire: a Transport that leaves to botocore what is unusual."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.exceptions import BotoCoreError

from persidict import log
from persidict.buffers import BUFFERS
from persidict.stores.s3.transport.direct.answers import is_redirection, read_reply, trouble_of
from persidict.stores.s3.transport.direct.connections import (
    CannotConnect,
    ConnectionPool,
    Timeouts,
)
from persidict.stores.s3.transport.direct.destination import (
    Destination,
    NotForTheDirectWire,
    learn_destination,
    tls_context,
)
from persidict.stores.s3.transport.direct.encoding import CannotEncode, Encoder
from persidict.stores.s3.transport.direct.exchange import (
    NoReply,
    WireReply,
    WireRequest,
    exchange,
    pieces_of,
)
from persidict.stores.s3.transport.direct.multiplexer import Multiplexer
from persidict.stores.s3.transport.direct.signing import (
    Credentials,
    FrozenCredentials,
    Signer,
)
from persidict.stores.s3.transport.errors import S3Error, refusal_of
from persidict.stores.s3.transport.messages import NOTHING_MORE, Refusal, ReplyType, Request
from persidict.stores.s3.transport.options import NO_OPTIONS, RequestOptions
from persidict.stores.s3.transport.transport import Again, Transport, never
from persidict.stores.shared.parallel import WorkerPool

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Configured(Protocol):
    """What a configuration has made botocore find out; other things after a fork.

    Attributes:
        pool: Its threads, whose number is that of the requests that may be under way.
    """

    pool: WorkerPool

    @property
    def client(self) -> S3Client:
        """The client, which is asked where requests go, and who listens to its events."""

    @property
    def credentials(self) -> Credentials | None:
        """What requests are signed with."""

    @property
    def ca_bundle(self) -> str | None:
        """The file of those who are trusted; None: those whom botocore trusts."""


class Lines:
    """The direct way to each bucket of one configuration, learnt when it is first needed.

    All buckets on one host share its connections.

    Args:
        configured: The configuration.
    """

    def __init__(self, configured: Configured) -> None:
        self._configured = configured
        self.forget()

    def forget(self) -> None:
        """Learn everything anew, in a child after fork."""
        self._lock = threading.Lock()
        self._known: dict[str, Line | str] = {}
        self._pools: dict[tuple[str, str, int], ConnectionPool] = {}

    def to(self, bucket_name: str) -> Line | str:
        """Return the line to a bucket, or why there is none.

        Raises:
            botocore.exceptions.BotoCoreError: botocore does not find what it needs.
            OSError: A certificate cannot be read.
        """
        known = self._known.get(bucket_name)
        return self._learn(bucket_name) if known is None else known

    def forget_lines(self) -> None:
        """Learn all ways anew, by another client; connections stay as they are."""
        self._known.clear()

    def forget_bucket(self, bucket_name: str) -> None:
        """Learn anew where a bucket is, which botocore has been told meanwhile."""
        self._known.pop(bucket_name, None)

    def _learn(self, bucket_name: str) -> Line | str:
        client = self._configured.client
        try:
            destination = learn_destination(client, bucket_name)
            credentials = self._configured.credentials
            if credentials is None:
                raise NotForTheDirectWire("there are no credentials")
        except NotForTheDirectWire as reason:
            line: Line | str = str(reason)
            log.debug("requests to bucket %r travel through botocore: %s", bucket_name, reason)
        else:
            line = Line(
                destination,
                self._pool(destination, client),
                Signer(_CurrentCredentials(self._configured, credentials), destination.scope),
                client,
            )
            log.debug("requests to bucket %r travel directly to %s", bucket_name, destination.url)
        self._known[bucket_name] = line
        return line

    def _pool(self, destination: Destination, client: S3Client) -> ConnectionPool:
        at = destination.scheme, destination.hostname, destination.port
        with self._lock:
            pool = self._pools.get(at)
            if pool is None:
                pool = self._pools[at] = self._new_pool(destination, client.meta.config)
            return pool

    def _new_pool(self, destination: Destination, config: Any) -> ConnectionPool:
        tls: ssl.SSLContext | None = None
        if destination.scheme == "https":
            tls = tls_context(self._configured.ca_bundle, config.client_cert)
        return ConnectionPool(
            destination.hostname,
            destination.port,
            tls,
            timeouts=Timeouts.of(config.connect_timeout, config.read_timeout),
            most_idle=2 * self._configured.pool.max_workers,
        )


class _CurrentCredentials:
    """The credentials of a configuration, also when they have been exchanged for others."""

    def __init__(self, configured: Configured, first: Credentials) -> None:
        self._configured = configured
        self._first = first

    def get_frozen_credentials(self) -> FrozenCredentials:
        return (self._configured.credentials or self._first).get_frozen_credentials()


class Line:
    """The direct way to one bucket.

    Args:
        destination: Where it leads.
        pool: Connections to there.
        signer: Signs what is sent.
        client: Whose events and settings hold.
    """

    def __init__(
        self, destination: Destination, pool: ConnectionPool, signer: Signer, client: S3Client
    ) -> None:
        config: Any = client.meta.config
        self.destination = destination
        self.url = destination.url
        self.pool = pool
        self._client = client
        self._events: Any = client.meta.events
        self._encoder = Encoder(
            destination,
            signer,
            asks_for_checksums=config.response_checksum_validation != "when_required",
            sends_checksums=config.request_checksum_calculation == "when_supported",
        )

    def prepare(
        self, request: Request[Any], options: RequestOptions = NO_OPTIONS
    ) -> WireRequest | None:
        """Return a request as it is sent now; None: it has something unusual.

        Args:
            request: The request.
            options: What goes with it.

        Raises:
            Refusal: There are no credentials to sign it with.
        """
        headers: Mapping[str, str] | None = NOTHING_MORE
        if options:
            headers = options.headers(self._client.meta.service_model, request.operation)
        if headers is None:
            return None
        try:
            return self._encoder.encode(request, headers)
        except CannotEncode:
            return None
        except BotoCoreError as error:
            raise refusal_of(error, request.operation, self.url) from None

    def intercepted(self, request: Request[Any], wire_request: WireRequest) -> WireReply | None:
        """Offer a request to whoever listens to botocore's ``before-send``.

        That may answer in the place of the server, as moto's ``mock_aws`` does, or change the
        headers.

        Raises:
            Refusal: A listener raised an exception of botocore's.
        """
        offered = _Offered(wire_request, self.destination)
        try:
            _, response = self._events.emit_until_response(
                f"before-send.s3.{request.operation}", request=offered
            )
        except S3Error as error:
            raise refusal_of(error, request.operation, self.url) from None
        if response is None:
            wire_request.headers = offered.headers_to_send()
            return None
        headers = {name.lower(): str(value) for name, value in response.headers.items()}
        length = headers.get("content-length", "")
        return WireReply(
            response.status_code,
            headers,
            b"" if wire_request.method == "HEAD" else bytes(response.content),
            int(length) if length.isdecimal() else None,
        )

    def send(self, request: Request[Any], wire_request: WireRequest) -> WireReply:
        """Send a request and wait for the reply.

        Raises:
            Refusal: None came.
        """
        reply = self.intercepted(request, wire_request)
        if reply is not None:
            return reply
        try:
            return exchange(self.pool, wire_request)
        except (CannotConnect, NoReply) as trouble:
            raise self.trouble(request, trouble) from None

    def answer(self, request: Request[Any], reply: WireReply) -> Any:
        """Return what a reply says.

        Raises:
            Refusal: It is not success.
        """
        return read_reply(request, reply, self.url)

    def trouble(self, request: Request[Any], trouble: CannotConnect | NoReply) -> Refusal:
        """Return the Refusal of a request that got no reply."""
        return trouble_of(request.operation, trouble, self.url)


class DirectWire(Transport):
    """Requests signed here and sent over connections of our own.

    What the direct wire does not know goes to the other wire: kinds of requests that are
    rare, redirections to other regions, and every request about buckets that are reached in
    a way of their own (see `NotForTheDirectWire`). Costs a tenth of botocore's CPU time.

    Args:
        bucket_name: The bucket.
        lines: The ways to buckets.
        pool: The number of its threads is that of requests under way in `send_many`.
        botocore_wire: The other wire.
        options: What goes with every request.
    """

    def __init__(
        self,
        bucket_name: str,
        lines: Lines,
        pool: WorkerPool,
        botocore_wire: Transport,
        options: RequestOptions = NO_OPTIONS,
    ) -> None:
        super().__init__(bucket_name, pool)
        self._lines = lines
        self._botocore_wire = botocore_wire
        self._options = options

    def __repr__(self) -> str:
        try:
            line = self._lines.to(self.bucket_name)
        except (BotoCoreError, OSError) as error:
            line = str(error)
        if isinstance(line, str):
            return f"<botocore wire to {self.bucket_name!r} at {self.endpoint} ({line})>"
        region = line.destination.scope.region
        return f"<direct wire to {self.bucket_name!r} at {line.destination.url} ({region})>"

    @property
    def endpoint(self) -> str:
        return self._botocore_wire.endpoint

    def require(self) -> None:
        """Make sure that requests travel directly.

        Raises:
            ValueError: They cannot; the text says why.
        """
        line = self._lines.to(self.bucket_name)
        if isinstance(line, str):
            raise ValueError(f"transport cannot be 'direct': {line}")

    @property
    def _line(self) -> Line | None:
        """The line to the bucket; None: requests go to the other wire, which says what is wrong."""
        try:
            line = self._lines.to(self.bucket_name)
        except (BotoCoreError, OSError):
            return None
        return None if isinstance(line, str) else line

    def send(self, request: Request[ReplyType]) -> ReplyType:
        line = self._line
        wire_request = None if line is None else line.prepare(request, self._options)
        if line is None or wire_request is None:
            return self._botocore_wire.send(request)
        reply = line.send(request, wire_request)
        if reply.status >= 300 and is_redirection(reply, line.destination.scope.region):
            return self._send_elsewhere(request)
        answer: ReplyType = line.answer(request, reply)
        return answer

    def _send_elsewhere(self, request: Request[ReplyType]) -> ReplyType:
        """Have botocore follow a redirection, and ask it afterwards where it led."""
        try:
            return self._botocore_wire.send(request)
        finally:
            self._lines.forget_bucket(self.bucket_name)

    def send_many(
        self, requests: Iterable[Request[ReplyType]], again: Again = never
    ) -> Iterator[ReplyType | Refusal]:
        line = self._line
        if line is None:
            return super().send_many(requests, again)
        multiplexer = Multiplexer(_Bulk(line, self), self.pool.max_workers, again)
        return multiplexer.run(requests)


class _Bulk:
    """What the multiplexer asks of a line; redirections go their own way."""

    def __init__(self, line: Line, wire: DirectWire) -> None:
        self._line = line
        self._wire = wire
        self.pool = line.pool
        self.intercepted = line.intercepted
        self.trouble = line.trouble

    def prepare(self, request: Request[Any]) -> WireRequest | None:
        return self._line.prepare(request, self._wire._options)

    def answer(self, request: Request[Any], reply: WireReply) -> Any:
        if reply.status >= 300 and is_redirection(reply, self._line.destination.scope.region):
            return self._wire._send_elsewhere(request)
        return self._line.answer(request, reply)

    def alone(self, request: Request[Any]) -> Any:
        return self._wire.send(request)


class _Offered(AWSPreparedRequest):
    """A request as botocore's listeners know it; what it consists of is made when asked for."""

    headers: Any

    def __init__(self, wire_request: WireRequest, destination: Destination) -> None:
        self._wire_request = wire_request
        self._destination = destination

    def __getattr__(self, name: str) -> Any:
        make = self._MAKERS.get(name)
        if make is None:
            raise AttributeError(name)
        value = self.__dict__[name] = make(self)
        return value

    def _body(self) -> bytes:
        plain = self._wire_request.body
        body = b"".join(pieces_of(plain))
        if not isinstance(plain, BUFFERS):
            plain.seek(0)
        return body

    _MAKERS: ClassVar[Mapping[str, Callable[[_Offered], Any]]] = {
        "body": _body,
        "context": lambda offered: {},
        "headers": lambda offered: HeadersDict(offered._wire_request.headers),
        "method": lambda offered: offered._wire_request.method,
        "stream_output": lambda offered: offered._wire_request.is_streamed,
        "url": lambda offered: offered._destination.url_of(offered._wire_request.target),
    }

    def headers_to_send(self) -> dict[str, str]:
        """Return the headers as listeners have left them."""
        if "headers" not in self.__dict__:
            return self._wire_request.headers
        return {
            name.lower(): value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in self.headers.items()
        }
