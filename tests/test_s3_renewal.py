"""Credentials that are rewritten or expire: the next handle, and every old one, finds others."""

from __future__ import annotations

import os
import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from persidict import BasicS3Dict, S3Dict
from persidict.stores.cached.store import CachedStore
from persidict.stores.memory import MemoryStore
from tests.s3_servers.scripted import Arrived, ScriptedServer, error, reply, scripted

Dict = BasicS3Dict[Any]


class Gate:
    """A server that takes one access key alone."""

    def __init__(self) -> None:
        self.key = "OLD"
        self.code = "ExpiredToken"
        self.let_in: list[Arrived] = []

    def __call__(self, request: Arrived) -> bytes:
        authorization = request.message.headers.get("authorization", "")
        if f"Credential={self.key}/" not in authorization:
            if request.method == "HEAD":
                return reply(status=400)
            return error(400, self.code)
        self.let_in.append(request)
        return reply(pickle.dumps(request.key) if request.method == "GET" else b"")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(gate: Gate) -> Iterator[ScriptedServer]:
    with scripted(gate) as running:
        yield running


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credentials"
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    write(path, "OLD")
    return path


def write(path: Path, key: str) -> None:
    """Write credentials as tools do that exchange them: into another file, which is renamed."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=s-{key}\n")
    os.replace(fresh, path)


@pytest.fixture(params=["direct", "botocore"])
def d(server: ScriptedServer, request: pytest.FixtureRequest) -> Dict:
    return handle(server, transport=str(request.param))


def handle(server: ScriptedServer, **params: Any) -> Dict:
    return BasicS3Dict(
        bucket_name="bucket",
        endpoint_url=server.endpoint_url,
        region="us-east-1",
        create_bucket=False,
        **params,
    )


def keys_used(server: ScriptedServer) -> list[str]:
    found = []
    for request in server.arrived:
        authorization = request.message.headers["authorization"]
        found.append(authorization.partition("Credential=")[2].partition("/")[0])
    return found


def test_the_next_handle_sees_a_file_that_was_rewritten(
    server: ScriptedServer, gate: Gate, file: Path, d: Dict
) -> None:
    assert d["a"] == "a.pkl"
    write(file, "NEW")
    gate.key = "NEW"
    fresh = handle(server, transport=d.get_params()["transport"])
    assert fresh["a"] == "a.pkl"
    assert keys_used(server) == ["OLD", "NEW"]


def test_a_handle_whose_credentials_expire_goes_on_with_those_of_the_file(
    server: ScriptedServer, gate: Gate, file: Path, d: Dict
) -> None:
    below = d.get_subdict("below")
    assert d["a"] == "a.pkl"
    write(file, "NEW")
    gate.key = "NEW"
    assert d["a"] == "a.pkl"
    assert below["b"] == "b.pkl"
    assert keys_used(server) == ["OLD", "OLD", "NEW", "NEW"]


@pytest.mark.parametrize("operation", ["set", "contains", "delete", "large"])
def test_every_kind_of_request_is_sent_again(
    server: ScriptedServer, gate: Gate, file: Path, d: Dict, operation: str
) -> None:
    assert d["a"] == "a.pkl"
    write(file, "NEW")
    gate.key = "NEW"
    if operation == "set":
        d["a"] = 1
    elif operation == "contains":
        assert "a" in d
    elif operation == "delete":
        d._store.delete("a.pkl")
    else:
        assert len(d.open("a").read()) > 0
    assert keys_used(server)[-1] == "NEW"


def test_many_requests_under_way_go_on(
    server: ScriptedServer, gate: Gate, file: Path, d: Dict
) -> None:
    names = [f"k{number}" for number in range(200)]
    assert len(d.get_many(names[:2])) == 2
    write(file, "NEW")
    gate.key = "NEW"
    assert list(d.get_many(names).values()) == [f"{name}.pkl" for name in names]


@pytest.mark.parametrize("operation", ["get_many", "update"])
def test_a_bulk_in_the_middle_of_which_they_expire_is_done_to_its_end_and_nothing_twice(
    server: ScriptedServer, gate: Gate, file: Path, d: Dict, operation: str
) -> None:
    names = [f"k{number:03}" for number in range(200)]

    def given() -> Iterator[str]:
        for name in names:
            if name == "k100":
                write(file, "NEW")
                gate.key = "NEW"
            yield name

    if operation == "get_many":
        assert list(d.get_many(given()).values()) == [f"{name}.pkl" for name in names]
    else:
        d.update((name, 1) for name in given())
    done = Counter(request.key for request in gate.let_in)
    assert done == Counter(f"{name}.pkl" for name in names)
    assert set(keys_used(server)) == {"OLD", "NEW"}


def test_threads_that_are_refused_at_once_all_go_on(
    server: ScriptedServer, gate: Gate, file: Path, d: Dict
) -> None:
    assert d["a"] == "a.pkl"
    write(file, "NEW")
    gate.key = "NEW"
    meet = threading.Barrier(8)

    def read(number: int) -> Any:
        meet.wait()
        return d[f"k{number}"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [f"k{number}.pkl" for number in range(8)]


def test_what_has_expired_and_was_not_rewritten_is_said_after_one_request(
    server: ScriptedServer, gate: Gate, d: Dict
) -> None:
    assert d["a"] == "a.pkl"
    gate.key = "NEW"
    for _ in range(3):
        with pytest.raises(ClientError, match="ExpiredToken"):
            d["a"]
    assert len(server.arrived) == 4


def test_a_file_that_is_half_written_is_not_taken_and_the_whole_one_is(
    server: ScriptedServer, gate: Gate, file: Path, d: Dict
) -> None:
    assert d["a"] == "a.pkl"
    gate.key = "NEW"
    for half in ("[default", "[default]\naws_access_key_id=NEW\n", ""):
        file.write_text(half)
        with pytest.raises(ClientError):
            d["a"]
    write(file, "NEW")
    assert d["a"] == "a.pkl"


def test_credentials_that_were_handed_over_are_not_exchanged(
    server: ScriptedServer, gate: Gate, file: Path
) -> None:
    given = handle(server, aws_access_key_id="OLD", aws_secret_access_key="s")
    assert given["a"] == "a.pkl"
    write(file, "NEW")
    gate.key = "NEW"
    with pytest.raises(ClientError):
        given["a"]
    assert set(keys_used(server)) == {"OLD"}
    again = handle(server, aws_access_key_id="OLD", aws_secret_access_key="s")
    assert again.s3_client is given.s3_client


@pytest.mark.parametrize("params", [{"append_only": True}, {"max_staleness": 3600}], ids=str)
@pytest.mark.parametrize("transport", ["direct", "botocore"])
def test_copies_belong_to_the_credentials_that_are_used_now(
    server: ScriptedServer, gate: Gate, file: Path, tmp_path: Path, transport: str, params: Any
) -> None:
    d: S3Dict[Any] = S3Dict(
        bucket_name="bucket",
        endpoint_url=server.endpoint_url,
        region="us-east-1",
        create_bucket=False,
        base_dir=tmp_path / "cache",
        transport=transport,
        **params,
    )
    d["secret"]
    d["secret"]
    assert keys_used(server) == ["OLD"]
    gate.key = "NEW"
    write(file, "NEW")
    d["b"]
    server.arrived.clear()
    for read in (d.__getitem__, d.get_subdict(()).__getitem__, lambda key: list(d.get_many([key]))):
        server.arrived.clear()
        d.clear_cache()
        read("secret")
        assert keys_used(server) == ["NEW"]
    d["secret"]
    assert keys_used(server) == ["NEW"]
    # what the first ones fetched stays theirs
    gate.key = "OLD"
    write(file, "OLD")
    d["c"]
    server.arrived.clear()
    d["secret"]
    assert keys_used(server) == []


def test_what_was_asked_for_with_other_credentials_is_not_kept_for_those_that_came_since(
    server: ScriptedServer, file: Path, tmp_path: Path
) -> None:
    who = ["OLD"]

    class Changing(MemoryStore):
        def get(self, name: str, **conditions: Any) -> Any:
            found = super().get(name, **conditions)
            who[0] = "NEW"
            return found

    store = CachedStore(
        Changing(), str(tmp_path / "cache"), identity="x", reader=lambda: who[0], trusting=True
    )
    store.wrapped.put("a", b"1")
    store.get("a")
    assert store.recent("a") is None
    assert store.info().entries == 0
