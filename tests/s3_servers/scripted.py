"""A server that answers each request with exactly the bytes that a test wants, or breaks off."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .http_messages import Message, read_head, read_message


class HangUp(Exception):
    """The connection is to be closed after what has been sent.

    Args:
        last: What is sent together with the end, so that nobody sees the one without the other.
    """

    def __init__(self, last: bytes = b"") -> None:
        super().__init__()
        self.last = last


@dataclass(frozen=True)
class Arrived:
    """A request that has arrived.

    Attributes:
        message: The request.
        connection: The number of its connection, from 0.
        number: Its own number on all connections, from 0.
    """

    message: Message
    connection: int
    number: int

    @property
    def method(self) -> str:
        return self.message.start_line.split()[0]

    @property
    def target(self) -> str:
        return self.message.start_line.split()[1]

    @property
    def key(self) -> str:
        """The last part of the path."""
        return self.target.partition("?")[0].rpartition("/")[2]


Answer = Callable[[Arrived], bytes | Iterable[bytes]]
"""Returns what is sent, at once or piece by piece; may raise HangUp."""


def reply(body: bytes = b"", *headers: str, status: int = 200, length: int | None = None) -> bytes:
    """Return a reply as S3 writes it."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(body) if length is None else length}",
        'ETag: "1"',
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def error(status: int, code: str) -> bytes:
    """Return an error as S3 writes it."""
    text = f"<Error><Code>{code}</Code><Message>message</Message></Error>"
    return reply(text.encode(), "Content-Type: application/xml", status=status)


@dataclass
class ScriptedServer:
    """A running server.

    Attributes:
        answer: What answers a request; may be exchanged at any time.
        arrived: All requests so far.
        address: Where it listens.
        tls: How it speaks TLS; None: not at all.
    """

    answer: Answer
    address: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    arrived: list[Arrived] = field(default_factory=list)

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._listener = socket.create_server((self.address, 0), family=family, backlog=256)
        self._open: set[socket.socket] = set()
        self._numbers = itertools.count()
        self._requests = itertools.count()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def endpoint_url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http{'s' if self.tls else ''}://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections there have been."""
        return len({request.connection for request in self.arrived})

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = next(self._numbers)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            with sock, sock.makefile("rb") as reader:
                while (request := self._read(sock, reader, number)) is not None:
                    self.arrived.append(request)
                    answer = self.answer(request)
                    try:
                        for piece in [answer] if isinstance(answer, bytes) else answer:
                            sock.sendall(piece)
                    except HangUp as end:
                        if end.last:
                            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                            sock.sendall(end.last)
                        raise
        except (HangUp, OSError, EOFError):
            sock.close()

    def _read(self, sock: Any, reader: BinaryIO, number: int) -> Arrived | None:
        head = read_head(reader)
        if head is None:
            return None
        if "expect" in head.headers:
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Arrived(read_message(reader, head), number, next(self._requests))

    def close_connections(self) -> None:
        """Cut all connections, as a server that restarts."""
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it is closed already

    def stop(self) -> None:
        # closing alone would leave it listening for as long as its thread waits in accept()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()


@contextmanager
def scripted(answer: Answer, **settings: Any) -> Iterator[ScriptedServer]:
    """Run a server."""
    server = ScriptedServer(answer, **settings)
    try:
        yield server
    finally:
        server.stop()


def make_certificate(directory: Path, name: str) -> Path:
    """Write a certificate for this machine that signs itself, with its key, into one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def server_context(certificate: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return how a server speaks TLS; with `client_ca` it wants a certificate, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context
