"""Secrets given to a constructor show nowhere: in no repr, JSON or error, in no frame of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from google.oauth2.credentials import Credentials
from mixinforge import dumpjs, loadjs

from persidict import (
    AzureDict,
    BasicS3Dict,
    Encrypted,
    FileDirDict,
    GCSDict,
    LocalDict,
    ProtectionError,
    S3Dict,
    Signed,
    open_dict,
)
from persidict.stores.s3.transport.connection import config_options
from persidict.stores.shared.secret import SecretURL

PROXIES = {"http": "http://me:hush-proxy@127.0.0.1:9", "https": "http://me:hush-proxy@127.0.0.1:9"}
SECRETS: dict[str, Any] = {
    "aws_access_key_id": "AKIAHUSH",
    "aws_secret_access_key": "hush-secret",
    "aws_session_token": "hush-token",
}
WORDS = ("hush", "AKIAHUSH")
SERVER = "http://127.0.0.1:9"


@pytest.fixture
def s3_params(tmp_path: Path) -> dict[str, Any]:
    return {"bucket_name": "some-bucket", "region": "us-east-1", "create_bucket": False}


def assert_hushed(text: str) -> None:
    assert [word for word in WORDS if word in text] == []


# ---------------------------------------------------------------------- proxies


def test_the_options_of_a_mapping_are_masked_wherever_they_are_looked_at() -> None:
    assert_hushed(repr(config_options({"proxies": PROXIES})))


@pytest.mark.parametrize("mark", "/?#")
@pytest.mark.parametrize("begin", ["http://me:hush", "http://me:1234", "me:1234", "http://12"])
def test_a_password_that_ends_too_soon_is_refused_without_showing_it(
    mark: str, begin: str, s3_params: dict[str, Any]
) -> None:
    url = f"{begin}{mark}hush@127.0.0.1:9"
    for given in ({"endpoint_url": url}, {"boto_config": {"proxies": {"http": url}}}):
        with pytest.raises(ValueError, match="password") as raised:
            BasicS3Dict(**s3_params, **given)
        assert_hushed(str(raised.value) + "".join(locals_of(raised.value.__traceback__)))


@pytest.mark.parametrize(
    "proxies", ["http://me:hush@h", ["http://me:hush@h"], {"http": b"http://me:hush@h"}]
)
def test_proxies_that_are_no_mapping_of_urls_are_refused_without_showing_them(
    proxies: Any, s3_params: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match="boto_config") as raised:
        BasicS3Dict(boto_config={"proxies": proxies}, **s3_params)
    assert_hushed(str(raised.value) + "".join(locals_of(raised.value.__traceback__)))


@pytest.mark.parametrize("name", list(SECRETS))
@pytest.mark.parametrize("wrong", [["hush"], ("hush",), {"a": "hush"}])
def test_a_secret_in_a_list_is_refused_without_showing_it(
    wrong: Any, name: str, s3_params: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a str, not") as raised:
        BasicS3Dict(**s3_params, **{**SECRETS, name: wrong})
    assert_hushed(str(raised.value) + "".join(locals_of(raised.value.__traceback__)))


@pytest.mark.parametrize("mark", ["", "/", "#", "?"])
@pytest.mark.parametrize("begin", ["hush", "1234"])
@pytest.mark.parametrize("scheme", ["s3+http", "s3", "gs", "az", "redis", "file", "s3:"])
def test_a_password_in_a_url_shows_nowhere_whatever_is_in_it(
    scheme: str, begin: str, mark: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as raised:
        open_dict(f"{scheme}://me:{begin}{mark}more-hush@127.0.0.1:9/bucket", create_bucket=False)
    assert_hushed(str(raised.value) + "".join(locals_of_all(raised.value)))


@pytest.mark.parametrize(
    "url",
    [
        "s3+http://h:1/b?aws_secret_access_key=hush",
        "s3+http://h:1/b?password=hush",
        "az://c?connection_string=hush",
        "az://c?account_url=https://x/?sig=hush",
        "gs://b?endpoint_url=http://me:hush@h",
    ],
)
def test_secrets_among_the_parameters_of_a_url_show_nowhere(url: str) -> None:
    with pytest.raises((ValueError, TypeError)) as raised:
        open_dict(url)
    assert_hushed(str(raised.value) + "".join(locals_of_all(raised.value)))


def test_parameters_behind_a_path_are_not_shown() -> None:
    with pytest.raises(ValueError, match="need a URL") as raised:
        open_dict("results?aws_secret_access_key=hush")
    assert_hushed(str(raised.value))


def test_secrets_beside_a_url_that_is_refused_show_nowhere() -> None:
    with pytest.raises(ValueError, match="unknown scheme") as raised:
        open_dict("redis://h", **SECRETS)
    assert_hushed("".join(locals_of_all(raised.value)))


def test_a_connection_string_that_is_none_shows_nowhere() -> None:
    d: AzureDict[Any] = AzureDict(
        container_name="c", connection_string="hush", create_container=False
    )
    with pytest.raises(ValueError, match="onnection string") as raised:
        d["a"]
    assert_hushed(str(raised.value) + "".join(locals_of_all(raised.value)))


@pytest.mark.parametrize(
    "text",
    [
        "hush",
        '{"private_key": "hush"}',
        '{"type": "service_account", "private_key": "hush", "client_email": "a@b",'
        ' "token_uri": "http://h", "project_id": "p"}',
    ],
)
def test_a_key_for_google_that_is_none_shows_in_no_frame(text: str) -> None:
    d: GCSDict[Any] = GCSDict(bucket_name="b", credentials=text, create_bucket=False)
    with pytest.raises(ValueError) as raised:
        d["a"]
    assert_hushed(str(raised.value) + "".join(locals_of_all(raised.value)))


HUSHED_KEY = b"hush" * 10


def short_key() -> bytes:
    return b"hush"


@pytest.mark.parametrize("kind", [Signed, Encrypted])
@pytest.mark.parametrize(
    ("keys", "params"),
    [
        (b"hush", {}),
        ("hush" * 10, {}),
        ([HUSHED_KEY, "hush"], {}),
        ([HUSHED_KEY, b"hush"], {}),
        (bytearray(HUSHED_KEY), {}),
        (HUSHED_KEY, {"place": "x"}),
        (HUSHED_KEY, {"place": 1}),
    ],
    ids=["short", "str", "list", "short second", "bytearray", "place", "no str"],
)
def test_a_protection_that_is_refused_keeps_no_key_in_its_frames(
    kind: Any, keys: Any, params: Any
) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        kind(keys, **params)
    assert_hushed("".join(locals_of_all(raised.value)))


@pytest.mark.parametrize("kind", [Signed, Encrypted])
def test_a_key_that_a_function_gives_and_is_refused_shows_in_no_frame(kind: Any) -> None:
    d: LocalDict[Any] = LocalDict(protection=kind([lambda: HUSHED_KEY, short_key]))
    with pytest.raises(ValueError, match="32 bytes") as raised:
        d["a"] = 1
    assert_hushed("".join(locals_of_all(raised.value)))


@pytest.mark.parametrize("kind", [Signed, Encrypted])
def test_what_is_derived_from_a_key_is_in_no_frame_of_what_is_not_trusted(kind: Any) -> None:
    protection = kind(HUSHED_KEY)
    d: LocalDict[Any] = LocalDict(protection=protection)
    d["a"] = 1
    d.raw["b"] = d.raw["a"]
    with pytest.raises(ProtectionError) as raised:
        d["b"]
    ((_, derived),) = protection._unlocked()
    assert repr(derived)[2:-1] not in "".join(locals_of_all(raised.value))
    assert raised.value.__context__ is None


@pytest.mark.parametrize("key", [HUSHED_KEY, "hush"])
def test_a_key_in_the_place_of_a_protection_does_not_show(key: Any, tmp_path: Path) -> None:
    kind = type(key).__name__
    with pytest.raises(TypeError, match=f"protection must be .*, not {kind}") as raised:
        FileDirDict(base_dir=tmp_path, protection=key)
    assert_hushed(str(raised.value) + "".join(locals_of_all(raised.value)))


@pytest.mark.parametrize(
    ("cls", "params"),
    [
        (AzureDict, {"container_name": 1, "connection_string": "hush"}),
        (AzureDict, {"container_name": "c", "account_url": "http://h", "credential": "hush"}),
        (GCSDict, {"bucket_name": "b", "credentials": "hush"}),
    ],
)
def test_a_constructor_that_a_subclass_calls_keeps_no_secret_in_its_frames(
    cls: Any, params: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        cls.__init__(object.__new__(cls), serialization_format="a/b", **params)
    assert_hushed("".join(locals_of_all(raised.value)))


@pytest.mark.parametrize("wrong", [b"hush", ["hush"], {"private_key": "hush"}])
def test_credentials_for_google_that_are_none_are_refused_without_showing_them(wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"credentials must be .*, not {kind}") as raised:
        GCSDict(bucket_name="b", project="p", create_bucket=False, credentials=wrong)
    assert_hushed(str(raised.value) + "".join(locals_of(raised.value.__traceback__)))


def test_the_named_key_of_an_azure_account_does_not_show() -> None:
    key = {"account_name": "me", "account_key": "aHVzaA==hush"}
    d: AzureDict[Any] = AzureDict(
        container_name="c",
        account_url="http://127.0.0.1:9/me",
        credential=key,
        create_container=False,
    )
    assert_hushed(repr(d) + repr(d.get_params()) + dumpjs(d) + str(vars(d)))


@pytest.fixture(params=[dict, lambda **options: Config(**options)], ids=["mapping", "Config"])
def behind_proxy(request: pytest.FixtureRequest, s3_params: dict[str, Any]) -> BasicS3Dict[Any]:
    config = request.param(proxies=PROXIES, connect_timeout=1, retries={"total_max_attempts": 1})
    return BasicS3Dict(endpoint_url=SERVER, boto_config=config, **s3_params, **SECRETS)


def test_the_password_of_a_proxy_does_not_show(behind_proxy: BasicS3Dict[Any]) -> None:
    d = behind_proxy
    for text in (repr(d), repr(d.get_params()), dumpjs(d), d.get_jsparams(), str(vars(d)), d.url):
        assert_hushed(text)
    assert "127.0.0.1:9" in repr(d)


def test_the_password_of_a_proxy_shows_in_no_error(behind_proxy: BasicS3Dict[Any]) -> None:
    with pytest.raises(Exception) as raised:  # whatever it is
        behind_proxy["a"]
    error: BaseException | None = raised.value
    while error is not None:
        assert_hushed(f"{error!r} {error} {getattr(error, '__notes__', '')} {vars(error)}")
        error = error.__cause__ or error.__context__


def test_the_password_of_a_proxy_reaches_the_client_and_travels_with_a_pickle(
    behind_proxy: BasicS3Dict[Any],
) -> None:
    for d in (behind_proxy, pickle.loads(pickle.dumps(behind_proxy)), behind_proxy.with_params()):
        assert d.s3_client.meta.config.proxies == PROXIES
        assert d == behind_proxy


def test_json_keeps_a_proxy_without_its_password(
    behind_proxy: BasicS3Dict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-environment")
    again = loadjs(dumpjs(behind_proxy))
    assert set(again.s3_client.meta.config.proxies.values()) == {SERVER}


# ---------------------------------------------------------------------- endpoints


@pytest.mark.parametrize("endpoint_url", ["http://me:hush@127.0.0.1:9", "https://hush@host/a?b=@"])
def test_a_password_in_an_endpoint_is_refused_with_the_way_to_give_one(
    endpoint_url: str, s3_params: dict[str, Any]
) -> None:
    for make in (BasicS3Dict, S3Dict):
        with pytest.raises(ValueError, match="aws_access_key_id") as raised:
            make(endpoint_url=endpoint_url, **s3_params)
        assert "endpoint_url" in str(raised.value)
        assert_hushed(str(raised.value))


def test_a_password_in_what_is_no_url_does_not_show_either(s3_params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="endpoint_url") as raised:
        BasicS3Dict(endpoint_url="me:hush@127.0.0.1:9", **s3_params)
    assert_hushed(str(raised.value))


def test_a_password_in_the_endpoint_of_the_environment_is_refused(
    s3_params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hush@127.0.0.1:9")
    d: Any = BasicS3Dict(**s3_params, **SECRETS)
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL") as raised:
        d["a"]
    assert_hushed(str(raised.value))


def test_a_password_in_the_endpoint_of_a_ready_client_is_refused() -> None:
    client = boto3.client("s3", endpoint_url="http://me:hush@127.0.0.1:9", region_name="us-east-1")
    with pytest.raises(ValueError, match="s3_client") as raised:
        BasicS3Dict(bucket_name="some-bucket", s3_client=client, create_bucket=False)
    assert_hushed(str(raised.value))


def test_a_password_in_a_url_to_open_is_refused() -> None:
    with pytest.raises(ValueError) as raised:
        open_dict("s3+http://me:hush@127.0.0.1:9/some-bucket")
    assert_hushed(str(raised.value))


@pytest.mark.parametrize(
    ("make", "params"),
    [
        (AzureDict, {"container_name": "c", "account_url": "https://a.example.org/?sig=hush"}),
        (AzureDict, {"container_name": "c", "account_url": "https://me:hush@a.example.org"}),
        (GCSDict, {"bucket_name": "some-bucket", "endpoint_url": "http://me:hush@127.0.0.1:9"}),
    ],
    ids=["signature", "password", "GCSDict"],
)
def test_secrets_in_the_urls_of_other_clouds_are_refused(make: Any, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="_url") as raised:
        make(**params)
    assert_hushed(str(raised.value))
    for shown in locals_of(raised.value.__traceback__):
        assert_hushed(shown)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a:b@host:1/p@th", "'http://***@host:1/p@th'"),
        ("http://a:b@c@host", "'http://***@host'"),
        ("http://host/?a=b@c", "'http://***@c'"),
        ("http://me:1234/hush@host:1", "'http://***@host:1'"),
        ("me:1234/hush@host:1", "'***@host:1'"),
        ("a:b@host:1", "'***@host:1'"),
    ],
)
def test_of_a_url_everything_but_user_and_password_shows(url: str, shown: str) -> None:
    assert repr(SecretURL(url)) == shown


# ---------------------------------------------------------------------- frames


def locals_of(traceback: TracebackType | None) -> Iterator[str]:
    """Yield what a report with local variables would show of the package's own frames."""
    while traceback is not None:
        frame = traceback.tb_frame
        if "/tests/" not in frame.f_code.co_filename:
            for value in frame.f_locals.values():
                try:
                    yield repr(value)
                except Exception as error:
                    raise AssertionError(f"{frame.f_code.co_name}: no repr") from error
        traceback = traceback.tb_next


def locals_of_all(error: BaseException | None) -> Iterator[str]:
    """Yield the same of an error and of those behind it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield from locals_of(error.__traceback__)
        error = error.__cause__ or error.__context__


WRONG: dict[str, dict[str, Any]] = {
    "no bucket": {"bucket_name": ""},
    "no region": {"region": "no/region", "create_bucket": True},
    "no option": {"boto_config": {"no_such_option": 1, "proxies": PROXIES}},
    "no transport": {"transport": "fast"},
    "no profile": {"profile_name": "no-such-profile", "create_bucket": True},
    "no format": {"serialization_format": "a/b"},
    "no parameter": {"no_such_parameter": 1},
    "bytes": {"aws_secret_access_key": b"hush-secret"},
    "password in the endpoint": {"endpoint_url": "http://me:hush@127.0.0.1:9"},
    "no server": {"endpoint_url": SERVER, "create_bucket": True},
    "no codec": {"codec": 1},
    "no prefix": {"root_prefix": "../a"},
    "a key to write with": {"put_options": {"SSECustomerKey": "hush-key"}},
    "a key to copy with": {"request_options": {"CopySourceSSECustomerKey": b"hush-key"}},
}


class OfOnesOwn(BasicS3Dict[Any]):
    """A subclass whose author passes secrets on by hand."""


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("make", [BasicS3Dict, S3Dict, OfOnesOwn], ids=lambda make: make.__name__)
def test_a_constructor_that_fails_keeps_no_secret_in_its_frames(
    make: Any, wrong: str, s3_params: dict[str, Any]
) -> None:
    attempts = {"boto_config": {"retries": {"total_max_attempts": 1}, "proxies": {}}}
    params = {**s3_params, **SECRETS, **attempts, **WRONG[wrong]}
    with pytest.raises(Exception) as raised:  # each one another
        make(**params)
    error: BaseException | None = raised.value
    while error is not None:
        for shown in locals_of(error.__traceback__):
            assert_hushed(shown)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("transport", ["direct", "botocore"])
def test_neither_does_an_operation(transport: str, s3_params: dict[str, Any]) -> None:
    d: Any = BasicS3Dict(
        endpoint_url=SERVER,
        transport=transport,
        boto_config={"retries": {"total_max_attempts": 1}},
        **s3_params,
        **SECRETS,
    )
    with pytest.raises(EndpointConnectionError) as raised:
        d["a"]
    error: BaseException | None = raised.value
    while error is not None:
        for shown in locals_of(error.__traceback__):
            assert_hushed(shown)
        error = error.__cause__ or error.__context__


NOWHERE = "http://127.0.0.1:9/account"


def in_azure(**params: Any) -> Any:
    return AzureDict(container_name="c", create_container=False, **params)


def in_google(**params: Any) -> Any:
    return GCSDict(bucket_name="b", project="p", create_bucket=False, **params)


IN_CLOUDS: dict[str, Callable[[], Any]] = {
    "a signature": lambda: in_azure(account_url=NOWHERE, credential="sv=2025-01-05&sig=hush"),
    "a key": lambda: in_azure(
        connection_string=f"AccountName=me;AccountKey=hushhush;BlobEndpoint={NOWHERE}"
    ),
    "half a connection string": lambda: in_azure(connection_string="AccountKey=hush"),
    "a token": lambda: in_google(credentials=Credentials(token="hush"), endpoint_url=NOWHERE),
    "half a key": lambda: in_google(credentials='{"private_key": "hush"}'),
    "no key": lambda: in_google(credentials="hush {"),
}


@pytest.mark.parametrize("operation", [lambda d: d["a"], lambda d: d.update(a=1)])
@pytest.mark.parametrize("connect", IN_CLOUDS.values(), ids=IN_CLOUDS)
def test_a_cloud_that_is_not_reached_is_told_without_secrets(
    connect: Callable[[], Any],
    operation: Callable[[Any], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "persidict")
    with pytest.raises(Exception) as raised:  # each one another
        operation(connect())
    assert_hushed(caplog.text)
    error: BaseException | None = raised.value
    while error is not None:
        assert_hushed(f"{error} {error!r} {error.__dict__}")
        for shown in locals_of(error.__traceback__):
            assert_hushed(shown)
        error = error.__cause__ or error.__context__


def test_neither_do_with_params_and_open_dict(s3_params: dict[str, Any]) -> None:
    d: Any = BasicS3Dict(**s3_params)
    for act in (
        lambda: d.with_params(transport="fast", **SECRETS),
        lambda: open_dict("s3://some-bucket", transport="fast", **SECRETS),
    ):
        with pytest.raises(ValueError, match="transport") as raised:
            act()
        for shown in locals_of(raised.value.__traceback__):
            assert_hushed(shown)


@pytest.mark.parametrize("cls", [BasicS3Dict, S3Dict, FileDirDict, LocalDict])
def test_a_handle_that_is_not_made_yet_has_a_repr(cls: Any) -> None:
    assert cls.__name__ in repr(object.__new__(cls))
