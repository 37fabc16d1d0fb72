"""What the direct wire signs is what botocore would have signed."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from persidict.stores.s3.transport.direct.signing import EMPTY_SHA256, Scope, Signer

pytestmark = pytest.mark.direct_wire

_CHARACTERS = "abcXYZ019()_-~.=/ +&%é#?[]'\"*!:;,@$<>\\^`{|}\t"
_HOSTS = {
    "virtual host": ("bucket.s3.eu-west-1.amazonaws.com", ""),
    "path style": ("s3.eu-west-1.amazonaws.com", "/bucket.with.dots"),
    "dual stack": ("bucket.s3.dualstack.eu-west-1.amazonaws.com", ""),
    "access point": ("point-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", ""),
    "another port": ("localhost:9000", "/bucket"),
    "IPv6": ("[::1]:9000", "/bucket"),
}
_SCOPES = {"access point": Scope("eu-west-1", "s3-outposts")}


def _random_request(chance: random.Random, base: str) -> tuple[str, str, str, dict[str, str]]:
    """Return method, path, query and headers, percent-encoded as they are sent."""
    key = "".join(chance.choices(_CHARACTERS, k=chance.randint(1, 30)))
    path = f"{base}/{quote(key, safe='/~')}"
    fields = {
        name: quote(key[: chance.randint(0, 9)], safe="-_.~")
        for name in chance.sample(["prefix", "start-after", "list-type", "uploadId", "delete"], 3)
    }
    query = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
    headers = {
        "if-match": '"0123abc"',
        "if-none-match": "*",
        "range": "bytes=0-9",
        "x-amz-checksum-mode": "ENABLED",
        "x-amz-meta-persidict-lineage": "a token;  another  =",
        "content-type": "text/plain; charset=utf-8",
        "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg==",
    }
    chosen = dict(chance.sample(sorted(headers.items()), chance.randint(0, 5)))
    method = chance.choice(["GET", "HEAD", "PUT", "POST", "DELETE"])
    return method, path, query if chance.random() < 0.7 else "", chosen


def _signed_by_botocore(
    credentials: Credentials,
    scope: Scope,
    method: str,
    url: str,
    headers: dict[str, str],
    stamp: str,
    payload_sha256: str,
) -> str:
    request = AWSRequest(method, url, headers=dict(headers))
    request.headers["X-Amz-Content-SHA256"] = payload_sha256
    request.headers["X-Amz-Date"] = stamp
    if credentials.token:
        request.headers["X-Amz-Security-Token"] = credentials.token
    request.context.update(timestamp=stamp, payload_signing_enabled=True, client_config=None)
    signer: Any = S3SigV4Auth(credentials, scope.service, scope.region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    authorization = [
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}",
        f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(request))}",
        f"Signature={signer.signature(text, request)}",
    ]
    return ", ".join(authorization)


@pytest.mark.parametrize("token", [None, "a/token+with==signs"])
@pytest.mark.parametrize("kind", _HOSTS)
def test_random_signatures_equal_those_of_botocore(kind: str, token: str | None) -> None:
    credentials = Credentials("ACCESS", "a/secret+key", token)
    scope = _SCOPES.get(kind, Scope("eu-west-1", "s3"))
    signer = Signer(credentials, scope)
    host, base = _HOSTS[kind]
    chance = random.Random(f"{kind} {token}")
    for _ in range(50):
        method, path, query, headers = _random_request(chance, base)
        digest = chance.choice([EMPTY_SHA256, "ab" * 32])
        mine = signer.sign(method, path, query, {**headers, "host": host}, digest)
        url = f"https://{host}{path}" + (f"?{query}" if query else "")
        theirs = _signed_by_botocore(
            credentials, scope, method, url, headers, mine["x-amz-date"], digest
        )
        assert mine["authorization"] == theirs, (method, url, headers)


def test_a_request_is_dated_now() -> None:
    signer = Signer(Credentials("access", "secret"), Scope("us-east-1", "s3"))
    before = datetime.now(UTC).replace(microsecond=0)
    headers = signer.sign("GET", "/", "", {"host": "localhost"})
    signed = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%S%z")
    assert before <= signed <= datetime.now(UTC)


def test_each_request_is_signed_with_the_credentials_of_its_moment() -> None:
    current = Credentials("first", "secret")

    class Changing:
        def get_frozen_credentials(self) -> Any:
            return current.get_frozen_credentials()

    signer = Signer(Changing(), Scope("us-east-1", "s3"))
    assert "Credential=first/" in signer.sign("GET", "/", "", {"host": "h"})["authorization"]
    current = Credentials("second", "secret", "token")
    headers = signer.sign("GET", "/", "", {"host": "h"})
    assert "Credential=second/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "token"
