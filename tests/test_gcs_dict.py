"""What GCSDict does of its own, on a strict server of the JSON API and on lax ones."""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import AnonymousCredentials

from persidict.exceptions import BackendError
from persidict.gcs_dict import GCSDict
from persidict.jokers_and_status_flags import ETAG_IS_THE_SAME
from tests.clouds import Fault, breaks, in_google, way
from tests.gcs_server import GCSServer

__all__ = ["breaks", "way"]

Dict = GCSDict[Any]

# ---------------------------------------------------------------------- a lax server


def connected_to(running: GCSServer, **params: Any) -> Dict:
    return GCSDict(
        bucket_name="tests",
        endpoint_url=running.url,
        credentials=AnonymousCredentials(),
        project="tests",
        **params,
    )


@pytest.fixture
def lax() -> Iterator[Dict]:
    running = GCSServer(is_lax=True)
    yield connected_to(running)
    running.stop()


def test_value_and_etag_belong_together_where_a_download_does_not_tell_its_generation(
    breaks: Callable[..., Fault],
) -> None:
    running = GCSServer(is_terse=True)
    d = connected_to(running)
    d["a"] = 1
    other = pickle.loads(pickle.dumps(d))
    # between the look at the version and the download of it
    breaks("get", "lose the reply").meanwhile = lambda: other.__setitem__("a", 2)
    found = d.get_with_etag("a")
    assert (found.new_value, found.actual_etag) == (2, d.etag("a"))
    running.stop()


def test_a_server_that_ignores_conditions_is_refused_conditional_changes(lax: Dict) -> None:
    lax["a"] = 1
    assert not lax.capabilities.conditions
    for change in (
        lambda: lax.setdefault("b", 2),
        lambda: lax.transform_item("a", transformer=lambda value: value + 1),
        lambda: lax.pop("a"),
        lambda: lax.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=lax.etag("a")),
    ):
        with pytest.raises(BackendError, match="ifGenerationMatch") as caught:
            change()
        assert caught.value.backend == "gcs"
    assert dict(lax.items()) == {("a",): 1}


def test_a_probe_leaves_nothing_behind() -> None:
    d = in_google(bucket_name=f"tests-{uuid.uuid4().hex[:12]}")
    assert d.capabilities.conditions
    assert list(d.client.list_blobs(d.bucket_name)) == []


# ---------------------------------------------------------------------- from outside


@pytest.fixture(scope="session")
def key_of_a_service_account() -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "somebody@tests.iam.gserviceaccount.com",
            "private_key": private.decode(),
            "token_uri": "http://127.0.0.1:9/token",
            "project_id": "tests",
        }
    )


def test_a_key_signs_urls_and_shows_nowhere(
    key_of_a_service_account: str,
) -> None:
    d = in_google(credentials=key_of_a_service_account, create_bucket=False)
    url = d.presign(("a", "b"), "PUT", expires=60)
    assert f"/{d.bucket_name}/{d.root_prefix}a/b.pkl?" in url
    assert "X-Goog-Signature=" in url
    assert "X-Goog-Expires=60" in url
    for text in (repr(d), str(d.get_params()), d.url):
        assert "PRIVATE" not in text
    assert pickle.loads(pickle.dumps(d)) == d


def test_credentials_that_cannot_sign_are_named() -> None:
    with pytest.raises(TypeError, match="can sign"):
        in_google().presign("a")


def test_an_item_says_where_it_lies() -> None:
    d = in_google(root_prefix="p")
    assert d.location(("a", "b")) == f"gs://{d.bucket_name}/p/a/b.pkl"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"bucket_name": 3}, TypeError),
        ({"bucket_name": ""}, ValueError),
        ({"credentials": 3}, TypeError),
        ({"project": 3}, TypeError),
        ({"max_concurrency": 0}, ValueError),
        ({"root_prefix": None}, TypeError),
    ],
)
def test_a_wrong_parameter_is_named(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="|".join(wrong)):
        in_google(**wrong)
