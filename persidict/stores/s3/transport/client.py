"""One client for one configuration in a process."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.handlers import add_expect_header
from botocore.parsers import DEFAULT_TIMESTAMP_PARSER, ResponseParserError

from persidict import log
from persidict.stores.s3.transport.botocore_wire import BotocoreWire
from persidict.stores.s3.transport.connection import (
    BOTOCORE,
    DEFAULT_MAX_CONCURRENCY,
    DIRECT,
    S3Connection,
)
from persidict.stores.s3.transport.direct.signing import Credentials
from persidict.stores.s3.transport.direct.wire import DirectWire, Lines
from persidict.stores.s3.transport.etag_form import ETagForm, InItsForm
from persidict.stores.s3.transport.messages import leads_nowhere
from persidict.stores.s3.transport.options import NO_OPTIONS, RequestOptions
from persidict.stores.s3.transport.renewal import Renewing
from persidict.stores.s3.transport.transport import Transport
from persidict.stores.shared.latest_and_used import LatestAndUsed
from persidict.stores.shared.parallel import WorkerPool
from persidict.stores.shared.secret import SecretURL, masked_url

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OK: Final = 200
_MOST_PAGES_AHEAD: Final = 16
_SECONDS_BETWEEN_LOOKS: Final = 10.0
"""How often credentials are looked for that may come from elsewhere than files."""

_EXPECT_ABOVE_BYTES: Final = 1024 * 1024
_CONDITIONS: Final = frozenset({"If-Match", "If-None-Match"})
_RESULT: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*"
    rb"<(?:\w+:)?DeleteResult[\s/>]",
    re.DOTALL,
)
"""How the XML begins that says what could not be deleted."""


@dataclass
class _Made:
    """A client and what botocore found for it.

    Attributes:
        access_key_id: As the client first found it; None: nobody has asked.
        attempts: How often a request is sent at most; one that is ready repeats by itself.
    """

    client: S3Client
    credentials: Callable[[], Credentials | None] = lambda: None
    ca_bundle: str | None = None
    access_key_id: str | None = None
    attempts: int = 1


def _signature(made: _Made) -> tuple[str, str, str | None] | None:
    """Return what tells credentials from others."""
    credentials = made.credentials()
    if credentials is None:
        return None
    frozen = credentials.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


class SharedClient:
    """A boto3 client that all handles of one configuration share, made when first needed.

    After a fork the child makes its own, because connections cannot be shared.

    Args:
        connection: The configuration, for a client made here. That client repeats nothing by
            itself: what may be repeated, and how often, is decided above the transport.
        ready: A client that was made elsewhere, instead. Nothing of it is changed, but that
            it sends bodies without asking first where they are small or no condition can
            refuse them, that another document is no answer to DeleteObjects, and that a
            redirection that names no region is the end.
        max_concurrency: How many requests may be under way at once.
    """

    def __init__(
        self,
        connection: S3Connection | None = None,
        *,
        ready: S3Client | None = None,
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
    ) -> None:
        if ready is not None:
            _refuse_userinfo("the endpoint of s3_client", ready)
            _set_right(ready)
        self._connection = connection
        self._ready = ready
        self._made: _Made | None = None if ready is None else _Made(ready)
        self._access_key_id: str | None = None
        self._surroundings = connection.surroundings() if connection else ()
        self._looked_for_others = -math.inf
        self._were_others_found = False
        self._lock = threading.Lock()
        self.pool = WorkerPool(max_concurrency)
        self.readers_ahead = WorkerPool(_MOST_PAGES_AHEAD)
        self._lines = Lines(self)

    @property
    def client(self) -> S3Client:
        """The client."""
        return (self._made or self._make()).client

    def check_options(self, options: RequestOptions) -> None:
        """Find fault with what the client does not know; see `RequestOptions.check`."""
        options.check(self.client.meta.service_model)

    @property
    def credentials(self) -> Credentials | None:
        """What the client signs requests with; those of a ready client are its own affair."""
        return (self._made or self._make()).credentials()

    @property
    def access_key_id(self) -> str:
        """The name of what requests are signed with, "" if they are not signed.

        As the client first found it, and another one once others are used because those have
        expired. Asks no server, unless botocore has to fetch the credentials themselves first.
        """
        made = self._made
        if made is None:
            if self._access_key_id is not None:
                return self._access_key_id  # the parent's, in a child that has not asked yet
            made = self._make()
        if made.access_key_id is None:
            given = self._connection.access_key_id if self._connection else None
            made.access_key_id = given.reveal() if given else _signer_of(made.client)
            self._access_key_id = made.access_key_id
        return made.access_key_id

    @property
    def ca_bundle(self) -> str | None:
        """The file of those who are trusted; None: those whom botocore trusts."""
        return (self._made or self._make()).ca_bundle

    @property
    def endpoint(self) -> str:
        """The URL that requests go to."""
        return self.client.meta.endpoint_url

    @property
    def attempts(self) -> int:
        """How often a request is sent at most.

        A ready client repeats by itself, as it was made to: what it has given up is lost.
        """
        return (self._made or self._make()).attempts

    def transport(self, bucket_name: str, options: RequestOptions = NO_OPTIONS) -> Transport:
        """Return how requests about a bucket travel, and what goes with each of them."""
        wire: Transport
        if self._connection is None:
            wire = BotocoreWire(self, bucket_name, "a ready client", options)
        elif self._connection.transport == BOTOCORE:
            wire = BotocoreWire(self, bucket_name, "as configured", options)
        else:
            other = BotocoreWire(self, bucket_name, "what is unusual", options)
            wire = DirectWire(bucket_name, self._lines, self.pool, other, options)
            if self._connection.transport == DIRECT:
                wire.require()
        if self._connection is not None and self._connection.access_key_id is None:
            wire = Renewing(wire, self.renew)
        return InItsForm(wire, _ETAG_FORMS.setdefault(self.endpoint, ETagForm(self.endpoint)))

    def _make(self) -> _Made:
        with self._lock:
            if self._made is None:
                if self._ready is not None:
                    # The connections in its pool are the parent process's.
                    self._ready.close()
                    self._made = _Made(self._ready)
                else:
                    assert self._connection is not None
                    surroundings = self._connection.surroundings()
                    self._made = _make_client(self._connection)
                    if surroundings == self._surroundings:
                        self._made.access_key_id = self._access_key_id
                    self._surroundings = surroundings
            return self._made

    def renew(self, is_certain: bool) -> bool:
        """Look for other credentials, and take them if there are; for clients made here.

        Args:
            is_certain: Whether those used now are known to have expired; if not, it is only
                looked whether files or environment have changed.

        Returns:
            Whether others are used now than a moment ago.
        """
        assert self._connection is not None
        with self._lock:
            now = time.monotonic()
            surroundings = self._connection.surroundings()
            if surroundings == self._surroundings:
                has_just_looked = now - self._looked_for_others < _SECONDS_BETWEEN_LOOKS
                if has_just_looked or not is_certain:
                    return has_just_looked and self._were_others_found
            self._looked_for_others = now
            try:
                made = _make_client(self._connection)
                found = _signature(made)
            except BotoCoreError:  # somebody is just writing the file
                return False
            if found is None:
                return False
            self._surroundings = surroundings
            before = None
            with suppress(BotoCoreError):  # they cannot be refreshed
                before = None if self._made is None else _signature(self._made)
            self._were_others_found = found != before
            if self._were_others_found:
                self._made = made
                self._lines.forget_lines()
                log.info("other credentials have been found after those used had expired")
            return self._were_others_found

    def forget_client(self) -> None:
        """Start without connections, in a child after fork."""
        self._made = None
        self._lock = threading.Lock()
        self._lines.forget()


_ETAG_FORMS: Final[dict[str, ETagForm]] = {}
_SHARED: Final[LatestAndUsed[tuple[Any, ...], SharedClient]] = LatestAndUsed(16)
_READY: Final[LatestAndUsed[tuple[int, int], SharedClient]] = LatestAndUsed(0)


def shared_client(connection: S3Connection) -> SharedClient:
    """Return the client of a configuration, the same one for equal configurations."""
    ready, count = connection.ready_client, connection.max_concurrency
    if ready is None:
        return _SHARED.get(
            connection.registry_key(), lambda: SharedClient(connection, max_concurrency=count)
        )
    # an id is not used again while its SharedClient holds the client
    return _READY.get((id(ready), count), lambda: SharedClient(ready=ready, max_concurrency=count))


def _forget_clients() -> None:
    for registry in (_SHARED, _READY):
        registry.forget_lock()
        for shared in registry.values():
            shared.forget_client()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_clients)


def _parse_timestamp(text: Any) -> Any:
    """Read the times that S3 writes in a twentieth of the time that botocore's parser takes."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return DEFAULT_TIMESTAMP_PARSER(text)


@lru_cache(maxsize=8)
def _loader(data_path: str | None) -> botocore.loaders.Loader:
    """Return what reads the descriptions of services, and keeps them for all clients."""
    return botocore.loaders.create_loader(data_path)


def _make_client(connection: S3Connection) -> _Made:
    session = botocore.session.Session(profile=connection.profile_name)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    session.get_component("response_parser_factory").set_parser_defaults(
        timestamp_parser=_parse_timestamp
    )
    _give_credentials(session, connection)
    client: S3Client = boto3.Session(botocore_session=session).client(
        "s3",
        region_name=connection.region,
        endpoint_url=connection.endpoint_url,
        config=connection.config(),
    )
    _refuse_userinfo("AWS_ENDPOINT_URL", client)
    client.meta.events.unregister("needs-retry.s3", unique_id="retry-config-s3")
    _set_right(client)
    client.meta.events.register_first(
        "choose-signer.s3", _sign_urls_by_version_4, unique_id="persidict-version-4"
    )

    def credentials() -> Any:
        return session.get_credentials()  # the same as the client's

    retries: Any = getattr(client.meta.config, "retries", None) or {}
    attempts = max(1, int(retries.get("total_max_attempts", 5)))
    ca_bundle = session.get_config_variable("ca_bundle")
    return _Made(client, credentials, ca_bundle, attempts=attempts)


def _give_credentials(session: botocore.session.Session, connection: S3Connection) -> None:
    """Let a session hold them: as arguments, they would show in the frames of what fails."""
    key, secret = connection.access_key_id, connection.secret_access_key
    if key is not None and secret is not None:
        token = connection.session_token
        session.set_credentials(key.reveal(), secret.reveal(), token.reveal() if token else None)


def _refuse_userinfo(name: str, client: S3Client) -> None:
    """Refuse an endpoint that would show a password wherever it is named."""
    if isinstance(masked_url(client.meta.endpoint_url), SecretURL):
        raise ValueError(f"{name} must not have a user and a password in it")


def _signer_of(client: S3Client) -> str:
    """Return the access key id of a client, from the URL of a request that is not sent."""
    try:
        url = client.generate_presigned_url("list_buckets", ExpiresIn=1)
    except NoCredentialsError:
        return ""
    query = parse_qs(urlsplit(url).query)
    # Signature Version 4 and, as some servers are still used with, 2
    if "X-Amz-Credential" in query:  # access key id, date, region, service, "aws4_request"
        return query["X-Amz-Credential"][0].rsplit("/", 4)[0]
    return query.get("AWSAccessKeyId", [""])[0]


def _set_right(client: S3Client) -> None:
    """Change what holds for every client, made here or elsewhere."""
    _send_bodies_at_once(client)
    _require_results(client)
    _end_circles(client)


def _send_bodies_at_once(client: S3Client) -> None:
    """Have the client ask for leave to send a body only where it is large and may be refused."""
    events = client.meta.events
    events.unregister("before-call.s3", add_expect_header)
    events.register("before-call.s3", _expect_if_large, unique_id="persidict-expect")


def _require_results(client: S3Client) -> None:
    """Have the client tell what was deleted from what is no answer to that."""
    client.meta.events.register(
        "before-parse.s3.DeleteObjects", _require_its_result, unique_id="persidict-result"
    )


def _require_its_result(response_dict: Mapping[str, Any], **kwargs: Any) -> None:
    """Refuse what botocore takes for a list of no failures, whatever document it is."""
    if response_dict["status_code"] == _OK and not _RESULT.match(response_dict["body"]):
        raise ResponseParserError("no DeleteResult in it")


def _end_circles(client: S3Client) -> None:
    """Keep the client from asking where a bucket is in order to learn where that bucket is."""
    client.meta.events.register_first(
        "needs-retry.s3.HeadBucket", _require_a_region, unique_id="persidict-region"
    )


def _require_a_region(response: tuple[Any, Mapping[str, Any]] | None, **kwargs: Any) -> None:
    """End with a redirection that does not say where to: botocore would repeat the question."""
    if response is None:
        return
    parsed: Any = response[1]
    if leads_nowhere(response[0].status_code, parsed["ResponseMetadata"]["HTTPHeaders"]):
        raise ClientError(parsed, "HeadBucket")


def _sign_urls_by_version_4(signature_version: Any, **kwargs: Any) -> Any:
    """Keep botocore from version 2, which new buckets and keys of KMS do not know, for URLs."""
    is_4 = signature_version in ("v4-query", "s3v4-query")  # what is configured may be another
    return "s3v4-query" if is_4 else None


def _expect_if_large(model: Any, params: dict[str, Any], **kwargs: Any) -> None:
    """Add ``Expect: 100-continue``, a round trip that saves sending a body in vain."""
    if model.name == "UploadPart":
        return  # a part is sent under no condition
    body = params.get("body")
    # a stream, of a client that others use too, may be one that cannot be sent again
    if not isinstance(body, BytesIO) or (
        body.getbuffer().nbytes > _EXPECT_ABOVE_BYTES
        and not _CONDITIONS.isdisjoint(params["headers"])
    ):
        add_expect_header(model, params, **kwargs)
