"""What AzureDict does of its own, on Azurite, Microsoft's own emulator."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests import azurite

if not azurite.is_wanted():
    pytest.skip(f"{azurite.REQUIRE}=1 asks for them", allow_module_level=True)

from azure.storage.blob import BlobServiceClient, UserDelegationKey

from persidict.azure_dict import AzureDict
from tests.clouds import azure_server, in_azure

Dict = AzureDict[Any]


def test_secrets_show_nowhere() -> None:
    secret = azure_server().connection_string
    d = in_azure(connection_string=secret)
    assert secret not in repr(d)
    assert secret not in str(d.get_params())


def test_a_copy_is_no_version_that_there_was_before() -> None:
    d = in_azure()
    d["a"] = 1
    d["b"] = 2
    before = {d.etag("a"), d.etag("b")}
    assert d.copy_item("a", "b") == d.etag("b")
    assert d.etag("b") not in before
    assert d["b"] == 1
    with pytest.raises(KeyError):
        d.copy_item("absent", "b")
    assert d.transform_item("b", transformer=lambda value: value + 1).new_value == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"account_url": "https://x.blob", "connection_string": "AccountName=x"}, ValueError),
        ({"container_name": 3}, TypeError),
        ({"credential": None, "max_concurrency": 0}, ValueError),
        ({"root_prefix": None}, TypeError),
        ({"root_prefix": "a\\b"}, ValueError),
        ({"root_prefix": "Dr./b"}, ValueError),
        ({"serialization_format": "txt.", "base_class_for_values": str}, ValueError),
    ],
)
def test_a_wrong_parameter_is_named(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="|".join(wrong)):
        in_azure(**wrong)


def test_no_blob_has_a_dot_before_a_slash_where_azure_would_leave_it_out() -> None:
    d = in_azure()
    d["Dr.", "...", "a."] = 1
    assert [blob.name for blob in d.container_client.list_blobs(d.root_prefix)] == [
        f"{d.root_prefix}Dr.%/...%/a..pkl"
    ]
    assert list(d.subdicts()) == ["Dr."]
    assert list(d.get_subdict(("Dr.", "..."))) == ["a."]


# ---------------------------------------------------------------------- signed URLs


def send(url: str, method: str, data: bytes | None = None) -> tuple[int, bytes]:
    """Send what anybody can send who has a URL, and return status and body."""
    request = Request(url, data=data, method=method, headers={"x-ms-blob-type": "BlockBlob"})
    try:
        with urlopen(request, timeout=30) as reply:
            return reply.status, reply.read()
    except HTTPError as error:
        return error.code, b""


def text_dict(**params: Any) -> Dict:
    return in_azure(serialization_format="txt", base_class_for_values=str, **params)


def test_a_signed_url_reads_an_item_and_nothing_else() -> None:
    d = text_dict()
    d["a", "b"] = "text"
    url = d.get_subdict("a").presign("b")
    assert send(url, "GET") == (200, b"text")
    assert send(d.presign(("a", "b"), "HEAD"), "HEAD") == (200, b"")
    assert send(url, "PUT", b"other")[0] == send(url, "DELETE")[0] == 403
    assert send(url.replace("/a/b.txt", "/a/c.txt"), "GET")[0] == 403
    assert d["a", "b"] == "text"


def test_a_signed_url_writes_and_deletes_an_item() -> None:
    d = text_dict()
    assert send(d.presign("a", "PUT"), "PUT", b"text")[0] == 201
    assert d["a"] == "text"
    assert send(d.presign("a", "DELETE"), "DELETE")[0] == 202
    assert "a" not in d


def test_a_signed_url_holds_no_longer_than_it_was_asked_to() -> None:
    query = parse_qs(urlsplit(in_azure().presign("a", expires=60)).query)
    left = datetime.fromisoformat(query["se"][0]) - datetime.now(UTC)
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)


def test_without_a_key_a_url_is_signed_by_delegation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Identity:
        def get_token(self, *scopes: str, **options: Any) -> Any:
            raise AssertionError("no request was to be sent")

    asked = []

    def delegated(service: BlobServiceClient, begin: Any, end: Any) -> UserDelegationKey:
        asked.append(service.url)
        key = UserDelegationKey()
        key.signed_oid = key.signed_tid = "00000000-0000-0000-0000-000000000000"
        key.signed_start = key.signed_expiry = "2026-01-01T00:00:00Z"
        key.signed_service, key.signed_version = "b", "2025-01-05"
        key.value = base64.b64encode(b"secret").decode()
        return key

    monkeypatch.setattr(BlobServiceClient, "get_user_delegation_key", delegated)
    d: Dict = AzureDict(
        container_name="items",
        account_url="https://account.blob.core.windows.net",
        credential=Identity(),
        create_container=False,
    )
    query = parse_qs(urlsplit(d.presign("a")).query)
    assert asked == ["https://account.blob.core.windows.net/"]
    assert (query["sks"], query["sp"], query["spr"]) == (["b"], ["r"], ["https"])


def test_a_sas_token_that_cannot_sign_says_so() -> None:
    d: Dict = AzureDict(
        container_name="items",
        account_url="https://account.blob.core.windows.net",
        credential="sv=2025-01-05&sig=abc",
        create_container=False,
    )
    with pytest.raises(TypeError, match="a SAS token cannot sign"):
        d.presign("a")
