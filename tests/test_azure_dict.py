"""AzureDict keeps the contract, on Azurite, Microsoft's own emulator."""

from __future__ import annotations

import base64
import multiprocessing
import pickle
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests import azurite

if not azurite.is_wanted():
    pytest.skip(f"{azurite.REQUIRE}=1 asks for them", allow_module_level=True)

from azure.core.exceptions import ResourceNotFoundError, ServiceResponseError
from azure.storage.blob import BlobServiceClient, UserDelegationKey
from hypothesis import settings

from persidict.azure_dict import AzureDict
from persidict.jokers_and_status_flags import ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE
from persidict.opening import open_dict
from persidict.stores.clouds.azure import AzureStore
from persidict.stores.clouds.store import Kind, Trouble
from persidict.testing import DictConformance, StoreConformance, state_machine_for
from persidict.transfer import copy_items, sync_items

Dict = AzureDict[Any]


@pytest.fixture(scope="session")
def server() -> Iterator[azurite.Azurite]:
    running = azurite.Azurite()
    with pytest.MonkeyPatch.context() as patch:
        # where a handle that lost its secrets on the way, in JSON, finds them
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", running.connection_string)
        yield running
    running.stop()


@pytest.fixture(scope="session")
def connect(server: azurite.Azurite) -> Callable[..., Dict]:
    container_name = f"tests-{uuid.uuid4().hex[:12]}"

    def make(**params: Any) -> Dict:
        return AzureDict(
            **{
                "container_name": container_name,
                "root_prefix": uuid.uuid4().hex,
                **params,
            }
        )

    return make


class TestAzureDict(DictConformance):
    @pytest.fixture
    def new_dict(self, connect: Callable[..., Dict]) -> Callable[..., Dict]:
        return connect


class TestAzureStore(StoreConformance):
    @pytest.fixture
    def new_store(self, connect: Callable[..., Dict]) -> Callable[[], Any]:
        return lambda: connect()._store


@pytest.mark.slow
@pytest.mark.parametrize("serialization_format", ["json", "txt"])
def test_random_histories_go_as_the_model_says(
    connect: Callable[..., Dict], serialization_format: str
) -> None:
    text = {"base_class_for_values": str} if serialization_format == "txt" else {}
    machine: Any = state_machine_for(
        lambda **params: connect(serialization_format=serialization_format, **text, **params)
    )
    machine.settings = settings(machine.settings, max_examples=20)
    machine("runTest").debug()


def add_one(current: Any) -> int:
    return 1 if current is ITEM_NOT_AVAILABLE else current + 1


def count(d: Dict, start: Barrier) -> None:
    start.wait()
    for _ in range(25):
        d.transform_item("counter", transformer=add_one, n_retries=None)


def take(d: Dict, start: Barrier, taken: Any) -> None:
    start.wait()
    while True:
        try:
            taken.put(d.popitem()[1])
        except KeyError:
            taken.put(None)
            return


def run_in_processes(work: Callable[..., None], d: Dict, *arguments: Any) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    workers = [context.Process(target=work, args=(d, start, *arguments)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0


def test_processes_that_count_lose_nothing(connect: Callable[..., Dict]) -> None:
    d = connect()
    run_in_processes(count, d)
    assert d["counter"] == 100


def test_processes_that_take_items_out_get_each_one_once(connect: Callable[..., Dict]) -> None:
    d = connect()
    d.update({str(number): number for number in range(40)})
    taken = multiprocessing.get_context("spawn").Queue()
    run_in_processes(take, d, taken)
    found = [taken.get() for _ in range(44)]
    assert sorted(number for number in found if number is not None) == list(range(40))


class Faults:
    """Loses answers of a store, or requests, once."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self.acts = True
        self.armed = True
        self.meanwhile: Callable[[], None] = lambda: None

    def send(self, store: AzureStore, *args: Any) -> Any:
        if not self.armed:
            return self._send(store, *args)
        self.armed = False
        if self.acts:
            self._send(store, *args)
        self.meanwhile()
        raise Trouble(Kind.LOST, ServiceResponseError("the answer got lost"))


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Faults]:
    def lose(method: str) -> Faults:
        faults = Faults(getattr(AzureStore, method))
        monkeypatch.setattr(AzureStore, method, lambda store, *args: faults.send(store, *args))
        return faults

    return lose


def test_a_write_whose_answer_got_lost_succeeds_once(
    connect: Callable[..., Dict], losing: Callable[[str], Faults]
) -> None:
    d = connect()
    d["a"] = 1
    losing("_send_put")
    assert d.transform_item("a", transformer=add_one).new_value == 2
    assert d["a"] == 2


def test_an_insertion_whose_answer_got_lost_is_told_that_it_won(
    connect: Callable[..., Dict], losing: Callable[[str], Faults]
) -> None:
    d = connect()
    losing("_send_put")
    done = d.set_item_if("a", value=1, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
    assert done.condition_was_satisfied
    assert done.resulting_etag == d.etag("a")


def test_a_lost_write_is_found_below_what_others_wrote_on_top(
    connect: Callable[..., Dict], losing: Callable[[str], Faults]
) -> None:
    d = connect()
    d["a"] = 1
    other = pickle.loads(pickle.dumps(d))
    faults = losing("_send_put")
    faults.meanwhile = lambda: other.transform_item("a", transformer=add_one)
    d.transform_item("a", transformer=add_one)
    assert d["a"] == 3


def test_a_request_that_was_lost_is_sent_again_under_its_version(
    connect: Callable[..., Dict], losing: Callable[[str], Faults]
) -> None:
    d = connect()
    d["a"] = 1
    losing("_send_put").acts = False
    assert d.transform_item("a", transformer=add_one).new_value == 2
    assert d["a"] == 2


def test_an_insertion_whose_item_was_taken_meanwhile_is_not_repeated(
    connect: Callable[..., Dict], losing: Callable[[str], Faults]
) -> None:
    d = connect()
    other = pickle.loads(pickle.dumps(d))
    losing("_send_put").meanwhile = lambda: other.pop("job")
    with pytest.raises(ServiceResponseError) as caught:
        d.setdefault("job", 1)
    assert "outcome unknown" in caught.value.__notes__[0]
    assert "job" not in d


def test_a_deletion_whose_answer_got_lost_does_not_delete_what_came_since(
    connect: Callable[..., Dict], losing: Callable[[str], Faults]
) -> None:
    d = connect()
    d["a"] = 1
    other = pickle.loads(pickle.dumps(d))
    losing("_send_delete").meanwhile = lambda: other.__setitem__("a", 2)
    with pytest.raises(ServiceResponseError):
        d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a"))
    assert d["a"] == 2


def test_a_missing_container_is_no_absence(connect: Callable[..., Dict]) -> None:
    d = connect(container_name=f"none-{uuid.uuid4().hex[:8]}", create_container=False)
    with pytest.raises(ResourceNotFoundError):
        d.get("a")


def test_secrets_show_nowhere(server: azurite.Azurite, connect: Callable[..., Dict]) -> None:
    secret = server.connection_string
    d = connect(connection_string=secret)
    assert secret not in repr(d)
    assert secret not in str(d.get_params())


def test_copying_and_syncing_send_no_bytes(
    connect: Callable[..., Dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = connect(), connect()
    source.update({str(number): number for number in range(20)})
    with monkeypatch.context() as patch:
        patch.delattr(AzureStore, "_send_get")
        patch.delattr(AzureStore, "_send_put")
        copy_items(source, target)
    assert target == source
    source["0"] = "new"
    del source["1"]
    sync_items(source, target, delete=True)
    assert dict(target.items()) == dict(source.items())


def test_a_copy_is_no_version_that_there_was_before(connect: Callable[..., Dict]) -> None:
    d = connect()
    d["a"] = 1
    d["b"] = 2
    before = {d.etag("a"), d.etag("b")}
    assert d.copy_item("a", "b") == d.etag("b")
    assert d.etag("b") not in before
    assert d["b"] == 1
    with pytest.raises(KeyError):
        d.copy_item("absent", "b")
    assert d.transform_item("b", transformer=add_one).new_value == 2


def test_a_url_opens_the_same_dictionary(connect: Callable[..., Dict]) -> None:
    d = connect(serialization_format="json", root_prefix=f"{uuid.uuid4().hex}/x")
    d["a"] = [1]
    again = open_dict(d.url)
    assert again == d
    assert again["a"] == [1]
    assert d.url == f"az://{d.container_name}/{d.root_prefix.rstrip('/')}?format=json"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"account_url": "https://x.blob", "connection_string": "AccountName=x"}, ValueError),
        ({"container_name": 3}, TypeError),
        ({"credential": None, "max_concurrency": 0}, ValueError),
        ({"root_prefix": None}, TypeError),
    ],
)
def test_a_wrong_parameter_is_named(
    connect: Callable[..., Dict], wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="|".join(wrong)):
        connect(**wrong)


# ---------------------------------------------------------------------- signed URLs


def send(url: str, method: str, data: bytes | None = None) -> tuple[int, bytes]:
    """Send what anybody can send who has a URL, and return status and body."""
    request = Request(url, data=data, method=method, headers={"x-ms-blob-type": "BlockBlob"})
    try:
        with urlopen(request, timeout=30) as reply:
            return reply.status, reply.read()
    except HTTPError as error:
        return error.code, b""


def text_dict(connect: Callable[..., Dict], **params: Any) -> Dict:
    return connect(serialization_format="txt", base_class_for_values=str, **params)


def test_a_signed_url_reads_an_item_and_nothing_else(connect: Callable[..., Dict]) -> None:
    d = text_dict(connect)
    d["a", "b"] = "text"
    url = d.get_subdict("a").presign("b")
    assert send(url, "GET") == (200, b"text")
    assert send(d.presign(("a", "b"), "HEAD"), "HEAD") == (200, b"")
    assert send(url, "PUT", b"other")[0] == send(url, "DELETE")[0] == 403
    assert send(url.replace("/a/b.txt", "/a/c.txt"), "GET")[0] == 403
    assert d["a", "b"] == "text"


def test_a_signed_url_writes_and_deletes_an_item(connect: Callable[..., Dict]) -> None:
    d = text_dict(connect)
    assert send(d.presign("a", "PUT"), "PUT", b"text")[0] == 201
    assert d["a"] == "text"
    assert send(d.presign("a", "DELETE"), "DELETE")[0] == 202
    assert "a" not in d


def test_a_signed_url_holds_no_longer_than_it_was_asked_to(connect: Callable[..., Dict]) -> None:
    query = parse_qs(urlsplit(connect().presign("a", expires=60)).query)
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
