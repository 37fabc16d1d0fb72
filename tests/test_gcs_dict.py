"""GCSDict keeps the contract, on a strict server of the JSON API."""

from __future__ import annotations

import multiprocessing
import pickle
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest
from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth.credentials import AnonymousCredentials
from hypothesis import settings

from persidict.exceptions import BackendError
from persidict.gcs_dict import GCSDict
from persidict.jokers_and_status_flags import ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE
from persidict.opening import open_dict
from persidict.testing import (
    DictConformance,
    StoreConformance,
    state_machine_for,
    store_machine_for,
)
from persidict.transfer import copy_items, sync_items
from tests.concurrency import do_random_operations, joined, run_workers
from tests.gcs_server import Fault, GCSServer, Mode
from tests.linearizability import assert_linearizable

Dict = GCSDict[Any]


@pytest.fixture(scope="session")
def server() -> Iterator[GCSServer]:
    running = GCSServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", running.url)
        patch.setenv("GOOGLE_CLOUD_PROJECT", "tests")
        yield running
    running.stop()


@pytest.fixture(scope="session")
def connect(server: GCSServer) -> Callable[..., Dict]:
    bucket_name = f"tests-{uuid.uuid4().hex[:12]}"

    def make(**params: Any) -> Dict:
        return GCSDict(**{"bucket_name": bucket_name, "root_prefix": uuid.uuid4().hex, **params})

    return make


@pytest.mark.slow
class TestGCSDict(DictConformance):
    @pytest.fixture
    def new_dict(self, connect: Callable[..., Dict]) -> Callable[..., Dict]:
        return connect


class TestGCSStore(StoreConformance):
    @pytest.fixture
    def new_store(self, connect: Callable[..., Dict]) -> Callable[[], Any]:
        return lambda: connect()._store


@pytest.mark.slow
@pytest.mark.parametrize("serialization_format", ["pkl", "json", "txt"])
def test_random_histories_go_as_the_model_says(
    connect: Callable[..., Dict], serialization_format: str
) -> None:
    text = {"base_class_for_values": str} if serialization_format == "txt" else {}
    machine: Any = state_machine_for(
        lambda **params: connect(serialization_format=serialization_format, **text, **params)
    )
    machine.settings = settings(machine.settings, max_examples=20)
    machine("runTest").debug()


def test_a_store_behaves_like_the_model(connect: Callable[..., Dict]) -> None:
    machine: Any = store_machine_for(lambda: connect()._store)
    machine.settings = settings(machine.settings, max_examples=10)
    machine("runTest").debug()


# ---------------------------------------------------------------------- many at once


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


@pytest.mark.slow
def test_processes_that_count_lose_nothing(connect: Callable[..., Dict]) -> None:
    d = connect()
    run_in_processes(count, d)
    assert d["counter"] == 100


@pytest.mark.slow
def test_processes_that_take_items_out_get_each_one_once(connect: Callable[..., Dict]) -> None:
    d = connect()
    d.update({str(number): number for number in range(40)})
    taken = multiprocessing.get_context("spawn").Queue()
    run_in_processes(take, d, taken)
    found = [taken.get() for _ in range(44)]
    assert sorted(number for number in found if number is not None) == list(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("fault_rate", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_random_operations_of_four_clients_have_an_order(fault_rate: float, seed: int) -> None:
    running = GCSServer()
    running.fault_rate = 0.0
    connected_to(running)
    running.fault_rate = fault_rate
    tolerated = (OSError, GoogleAPICallError)
    history = run_workers(
        partial(connected_to, running, create_bucket=False),
        do_random_operations,
        ["x", "y"],
        60,
        tolerated,
        seed,
        count=4,
        start="thread",
    )
    running.stop()
    assert_linearizable(joined(history))


# ---------------------------------------------------------------------- faults

ACTED: list[Mode] = ["lose the reply", "500 after acting", "twice"]
DID_NOTHING: list[Mode] = ["lose the request", "503"]


@pytest.fixture
def breaks(server: GCSServer) -> Iterator[Callable[..., Fault]]:
    def break_next(operation: str, mode: Mode) -> Fault:
        fault = Fault(operation, mode)
        server.faults.append(fault)
        return fault

    yield break_next
    assert server.faults == [], "a fault was planned that nothing met"


@pytest.mark.parametrize("mode", ACTED + DID_NOTHING)
def test_an_increment_takes_effect_once_whatever_becomes_of_its_write(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], mode: Mode
) -> None:
    d = connect()
    d["a"] = 1
    breaks("insert", mode)
    assert d.transform_item("a", transformer=add_one).new_value == 2
    assert d["a"] == 2


@pytest.mark.parametrize("mode", [*ACTED, "503"])
def test_an_insertion_is_told_that_it_won_whatever_becomes_of_its_write(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], mode: Mode
) -> None:
    d = connect()
    d.capabilities  # noqa: B018 - found out before anything breaks
    breaks("insert", mode)
    done = d.set_item_if("a", value=1, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
    assert done.condition_was_satisfied
    assert done.resulting_etag == d.etag("a")


@pytest.mark.parametrize("mode", ["lose the reply", "500 after acting", "twice"])
def test_a_large_value_is_written_once_whatever_becomes_of_its_last_request(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], mode: Mode
) -> None:
    d = connect(serialization_format="bin", base_class_for_values=bytes)
    d["a"] = b""
    value = bytes(9 * 1024 * 1024)
    if mode == "twice":
        mode = "lose the request"
    breaks("resume", mode)
    done = d.set_item_if("a", value=value, condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a"))
    assert done.condition_was_satisfied
    assert d["a"] == value


@pytest.mark.parametrize("mode", ACTED + DID_NOTHING)
@pytest.mark.parametrize("operation", ["get", "list"])
def test_reading_is_repeated_until_it_succeeds(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], operation: str, mode: Mode
) -> None:
    d = connect()
    d["a"] = 1
    breaks(operation, mode)
    assert dict(d.items()) == {("a",): 1} if operation == "list" else d["a"] == 1


def test_a_lost_write_is_found_below_what_others_wrote_on_top(
    connect: Callable[..., Dict], breaks: Callable[..., Fault]
) -> None:
    d = connect()
    d["a"] = 1
    other = pickle.loads(pickle.dumps(d))
    breaks("insert", "lose the reply").meanwhile = lambda: other.transform_item(
        "a", transformer=add_one
    )
    d.transform_item("a", transformer=add_one)
    assert d["a"] == 3


def test_an_insertion_whose_item_was_taken_meanwhile_is_not_repeated(
    connect: Callable[..., Dict], breaks: Callable[..., Fault]
) -> None:
    d = connect()
    other = pickle.loads(pickle.dumps(d))
    assert d.capabilities.conditions
    breaks("insert", "lose the reply").meanwhile = lambda: other.pop("job")
    with pytest.raises(OSError) as caught:  # what requests raises is one
        d.setdefault("job", 1)
    assert "outcome unknown" in caught.value.__notes__[0]
    assert "job" not in d


@pytest.mark.parametrize("mode", ["lose the reply", "500 after acting"])
def test_a_deletion_whose_answer_got_lost_does_not_delete_what_came_since(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], mode: Mode
) -> None:
    d = connect()
    d["a"] = 1
    other = pickle.loads(pickle.dumps(d))
    assert d.capabilities.conditions
    etag = d.etag("a")
    breaks("delete", mode).meanwhile = lambda: other.__setitem__("a", 2)
    with pytest.raises((OSError, GoogleAPICallError)) as caught:
        d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=etag)
    assert "outcome unknown" in caught.value.__notes__[0]
    assert d["a"] == 2


@pytest.mark.parametrize("mode", ["lose the request", "lose the reply"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_discard_without_an_answer_claims_nothing(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], mode: Mode, exists: bool
) -> None:
    d = connect()
    if exists:
        d["a"] = 1
    breaks("delete", mode)
    with pytest.raises(OSError) as caught:
        d.discard("a")
    assert "outcome unknown" in caught.value.__notes__[0]


@pytest.mark.parametrize("mode", ["lose the reply", "500 after acting"])
def test_clearing_needs_no_answer_where_nothing_is_left(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], mode: Mode
) -> None:
    d = connect()
    d["a"] = 1
    breaks("delete", mode)
    d.clear()
    assert "a" not in d


@pytest.mark.parametrize("mode", DID_NOTHING)
def test_a_deletion_that_was_not_carried_out_is_repeated(
    connect: Callable[..., Dict], breaks: Callable[..., Fault], mode: Mode
) -> None:
    d = connect()
    d["a"] = 1
    assert d.capabilities.conditions
    breaks("delete", mode)
    assert d.pop("a") == 1
    assert "a" not in d


def test_a_missing_bucket_is_no_absence(connect: Callable[..., Dict]) -> None:
    d = connect(bucket_name=f"none-{uuid.uuid4().hex[:8]}", create_bucket=False)
    for look in (lambda: d.get("a"), lambda: d.info("a"), lambda: list(d), lambda: d.discard("a")):
        with pytest.raises(NotFound):
            look()


# ---------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        (lambda d: d["a"], ["get"]),
        (lambda d: "a" in d, ["get"]),
        (lambda d: d.__setitem__("a", 2), ["insert"]),
        (lambda d: d.discard("a"), ["delete"]),
        (lambda d: d.transform_item("a", transformer=add_one), ["get", "insert"]),
        (lambda d: d.setdefault("b", 2), ["insert"]),
        (lambda d: d.pop("a"), ["get", "delete"]),
        (lambda d: list(d), ["list"]),
        (lambda d: d.copy_item("a", "b"), ["rewrite"]),
        (lambda d: list(d.keys(start="a")), ["list"]),
    ],
)
def test_an_operation_takes_the_fewest_requests(
    connect: Callable[..., Dict],
    server: GCSServer,
    operation: Callable[[Dict], Any],
    wanted: list[str],
) -> None:
    d = connect()
    d["a"] = 1
    assert d.capabilities.conditions
    before = len(server.operations)
    operation(d)
    assert server.operations[before:] == wanted


def test_a_listing_of_many_pages_is_whole_and_in_order(connect: Callable[..., Dict]) -> None:
    store = connect()._store
    names = [f"{number // 7}/{number}" for number in range(60)]
    assert [error for _, error in store.put_many((name, b"") for name in names)]
    assert [entry[0] for entry in store.list(page_size=7)] == sorted(names)
    groups = [entry[0] for entry in store.list(delimiter="/", page_size=2, start_after="3/")]
    assert groups == ["4/", "5/", "6/", "7/", "8/"]


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


def test_value_and_etag_belong_together_where_a_download_does_not_tell_its_generation() -> None:
    running = GCSServer(is_terse=True)
    d = connected_to(running)
    d["a"] = 1
    other = pickle.loads(pickle.dumps(d))
    # between the look at the version and the download of it
    running.faults.append(
        Fault("get", "lose the reply", meanwhile=lambda: other.__setitem__("a", 2))
    )
    found = d.get_with_etag("a")
    assert (found.new_value, found.actual_etag) == (2, d.etag("a"))
    running.stop()


def test_a_server_that_ignores_conditions_is_refused_conditional_changes(lax: Dict) -> None:
    lax["a"] = 1
    assert not lax.capabilities.conditions
    for change in (
        lambda: lax.setdefault("b", 2),
        lambda: lax.transform_item("a", transformer=add_one),
        lambda: lax.pop("a"),
        lambda: lax.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=lax.etag("a")),
    ):
        with pytest.raises(BackendError, match="ifGenerationMatch") as caught:
            change()
        assert caught.value.backend == "gcs"
    assert dict(lax.items()) == {("a",): 1}


def test_a_probe_leaves_nothing_behind(server: GCSServer) -> None:
    d: Dict = GCSDict(bucket_name=f"tests-{uuid.uuid4().hex[:12]}")
    assert d.capabilities.conditions
    assert list(d.client.list_blobs(d.bucket_name)) == []


# ---------------------------------------------------------------------- from outside


@pytest.fixture(scope="session")
def key_of_a_service_account() -> str:
    import json

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

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
    connect: Callable[..., Dict], key_of_a_service_account: str
) -> None:
    d = connect(credentials=key_of_a_service_account, create_bucket=False)
    url = d.presign(("a", "b"), "PUT", expires=60)
    assert f"/{d.bucket_name}/{d.root_prefix}a/b.pkl?" in url
    assert "X-Goog-Signature=" in url
    assert "X-Goog-Expires=60" in url
    for text in (repr(d), str(d.get_params()), d.url):
        assert "PRIVATE" not in text
    assert pickle.loads(pickle.dumps(d)) == d


def test_credentials_that_cannot_sign_are_named(connect: Callable[..., Dict]) -> None:
    with pytest.raises(TypeError, match="can sign"):
        connect().presign("a")


def test_an_item_says_where_it_lies(connect: Callable[..., Dict]) -> None:
    d = connect(root_prefix="p")
    assert d.location(("a", "b")) == f"gs://{d.bucket_name}/p/a/b.pkl"


def test_a_url_opens_the_same_dictionary(connect: Callable[..., Dict]) -> None:
    d = connect(serialization_format="json", root_prefix=f"{uuid.uuid4().hex}/x")
    d["a"] = [1]
    again = open_dict(d.url)
    assert again == d
    assert again["a"] == [1]
    assert d.url == f"gs://{d.bucket_name}/{d.root_prefix.rstrip('/')}?format=json"


def test_copying_and_syncing_send_no_bytes(connect: Callable[..., Dict], server: GCSServer) -> None:
    source, target = connect(), connect()
    source.update({str(number): number for number in range(20)})
    before = len(server.operations)
    copy_items(source, target)
    assert set(server.operations[before:]) <= {"rewrite", "list"}
    assert target == source
    source["0"] = "new"
    del source["1"]
    sync_items(source, target, delete=True)
    assert dict(target.items()) == dict(source.items())


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
def test_a_wrong_parameter_is_named(
    connect: Callable[..., Dict], wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="|".join(wrong)):
        connect(**wrong)
