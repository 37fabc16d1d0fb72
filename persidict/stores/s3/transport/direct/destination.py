"""Where requests about a bucket go: learnt from one that botocore prepares and nobody sends."""

from __future__ import annotations

import re
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from persidict.stores.s3.transport.direct.signing import Scope

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_KEY: Final = "persidict-rehearsal"
_EVENT: Final = "before-send.s3.HeadObject"
_SIGNATURE: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=.+/[0-9]{8}/([^/]+)/([^/]+)/aws4_request,"
)
_EXPRESS_BUCKET: Final = "--x-s3"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class NotForTheDirectWire(Exception):
    """Requests about this bucket are left to botocore; the text says why."""


@dataclass(frozen=True)
class Destination:
    """Where requests about a bucket go, and what they say of this client.

    Attributes:
        scheme: ``http`` or ``https``.
        hostname: What is connected to.
        port: Its port.
        host: The header of that name.
        base: The path that keys are added to; it ends with a slash.
        scope: What signatures are valid for.
        user_agent: The header of that name.
    """

    scheme: str
    hostname: str
    port: int
    host: str
    base: str
    scope: Scope
    user_agent: str

    @property
    def url(self) -> str:
        """The URL of the bucket."""
        return self.url_of(self.base)

    def url_of(self, target: str) -> str:
        """Return the URL of a path there."""
        return f"{self.scheme}://{self.host}{target}"

    @property
    def bucket_path(self) -> str:
        """The path of the bucket itself."""
        return self.base[:-1] or "/"


class _Captured(Exception):
    """The request has been seen and need not be sent."""


def learn_destination(client: S3Client, bucket_name: str) -> Destination:
    """Have botocore prepare a request about an object of a bucket, and read it; sends nothing.

    Whatever botocore makes of endpoint, region, style of address, access point, dual stack or
    acceleration is found in it.

    Raises:
        NotForTheDirectWire: It is to be sent in a way that only botocore knows.
        botocore.exceptions.BotoCoreError: botocore cannot prepare it.
    """
    if bucket_name.endswith(_EXPRESS_BUCKET):
        raise NotForTheDirectWire("buckets of S3 Express have sessions")
    prepared = _rehearse(client, bucket_name)
    headers = {name.lower(): _text(value) for name, value in prepared.headers.items()}
    signature = _SIGNATURE.match(headers.get("authorization", ""))
    if signature is None or "x-amz-s3session-token" in headers:
        raise NotForTheDirectWire("requests are unsigned, or not signed with SigV4")
    url = urlsplit(prepared.url)
    proxies = client.meta.config.proxies  # type: ignore[attr-defined]
    if proxies is None:
        proxies = get_environ_proxies(prepared.url)
    if proxies.get(url.scheme):
        raise NotForTheDirectWire("a proxy is configured")
    path = url.path.removesuffix(_KEY)
    if url.hostname is None or url.query or path == url.path or url.scheme not in _DEFAULT_PORTS:
        raise NotForTheDirectWire("the endpoint is an unusual one")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    default_port = _DEFAULT_PORTS[url.scheme]
    port = url.port or default_port
    return Destination(
        scheme=url.scheme,
        hostname=url.hostname,
        port=port,
        host=host if port == default_port else f"{host}:{port}",
        base=path,
        scope=Scope(*signature.groups()),
        user_agent=headers.get("user-agent", "persidict"),
    )


def _rehearse(client: S3Client, bucket_name: str) -> Any:
    captured: list[Any] = []
    me = threading.get_ident()

    def capture(request: Any, **kwargs: Any) -> None:
        if threading.get_ident() == me:
            captured.append(request)
            raise _Captured

    events: Any = client.meta.events
    events.register_first(_EVENT, capture)
    try:
        client.head_object(Bucket=bucket_name, Key=_KEY)
    except _Captured:
        pass
    finally:
        events.unregister(_EVENT, capture)
    if not captured:
        raise NotForTheDirectWire("botocore sends requests in a way of its own")
    return captured[0]


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def tls_context(
    ca_bundle: str | None, client_certificate: str | tuple[str, str] | None
) -> ssl.SSLContext:
    """Return how TLS is spoken: as botocore does by the same settings.

    Args:
        ca_bundle: Whom to trust (``AWS_CA_BUNDLE``); None: those whom botocore trusts.
        client_certificate: The file of a certificate, or one and that of its key.

    Raises:
        OSError: One of the files cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    path = get_cert_path(ca_bundle or True)  # type: ignore[arg-type]
    context.load_verify_locations(cafile=path)
    if isinstance(client_certificate, str):
        context.load_cert_chain(client_certificate)
    elif client_certificate is not None:
        context.load_cert_chain(*client_certificate)
    return context
