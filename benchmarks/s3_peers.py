"""Other ways to keep values in a bucket, with one interface."""

from __future__ import annotations

import asyncio
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from benchmarks.harness import Omission
from benchmarks.peers import PeerUnavailable, load

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET: Final = "benchmark"
REGION: Final = "us-east-1"
ANY_CREDENTIAL: Final = "test"
CONCURRENCY: Final = 32
_PAGE: Final = 1000


class ObjectPeer(ABC):
    """Pickled values below a prefix of a bucket.

    Attributes:
        title: What it is called in the tables.
        is_sequential: Whether it does one thing after the other, so that many take long.
    """

    title: str
    is_sequential: bool = False

    @abstractmethod
    def get(self, name: str) -> Any:
        """Read one value."""

    @abstractmethod
    def put(self, name: str, value: Any) -> object:
        """Store one value."""

    @abstractmethod
    def contains(self, name: str) -> bool:
        """Look whether there is a value."""

    def swap(self, name: str, value: Any) -> Callable[[], object] | None:
        """Return a function that overwrites the version it wrote before, if there is a way."""
        return None

    @abstractmethod
    def names(self) -> list[str]:
        """List all names."""

    @abstractmethod
    def read(self, names: Iterable[str]) -> dict[str, Any]:
        """Read many values."""

    @abstractmethod
    def write(self, items: Mapping[str, Any]) -> object:
        """Store many values."""

    @abstractmethod
    def clear(self) -> object:
        """List all names, and delete them."""

    def read_all(self) -> dict[str, Any]:
        """List all names, and read them."""
        return self.read(self.names())


class BotoLoop(ObjectPeer):
    """boto3, one request after the other.

    Args:
        client: The client.
        title: What it is called in the tables.
    """

    is_sequential = True

    def __init__(self, client: S3Client, title: str = "boto3, sequential") -> None:
        self.title = title
        self._client = client
        self._prefix = f"{title.replace(' ', '-')}/"

    def get(self, name: str) -> Any:
        reply = self._client.get_object(Bucket=BUCKET, Key=self._prefix + name)
        return pickle.loads(reply["Body"].read())

    def put(self, name: str, value: Any) -> object:
        return self._client.put_object(
            Bucket=BUCKET, Key=self._prefix + name, Body=pickle.dumps(value, 5)
        )

    def contains(self, name: str) -> bool:
        return "ETag" in self._client.head_object(Bucket=BUCKET, Key=self._prefix + name)

    def swap(self, name: str, value: Any) -> Callable[[], object]:
        key = self._prefix + name
        etag = self._client.put_object(Bucket=BUCKET, Key=key, Body=b"")["ETag"]

        def overwrite() -> None:
            nonlocal etag
            body = pickle.dumps(value, 5)
            reply = self._client.put_object(Bucket=BUCKET, Key=key, Body=body, IfMatch=etag)
            etag = reply["ETag"]

        return overwrite

    def names(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=self._prefix
        )
        return [
            item["Key"].removeprefix(self._prefix)
            for page in pages
            for item in page.get("Contents", ())
        ]

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: self.get(name) for name in names}

    def write(self, items: Mapping[str, Any]) -> object:
        return [self.put(name, value) for name, value in items.items()]

    def clear(self) -> object:
        names = self.names()
        for start in range(0, len(names), _PAGE):
            objects = [{"Key": self._prefix + name} for name in names[start : start + _PAGE]]
            self._client.delete_objects(
                Bucket=BUCKET,
                Delete={"Objects": objects, "Quiet": True},  # type: ignore[typeddict-item]
            )
        return names


class BotoPool(BotoLoop):
    """boto3 in a pool of threads."""

    is_sequential = False

    def __init__(self, client: S3Client, title: str = f"boto3, {CONCURRENCY} threads") -> None:
        super().__init__(client, title)
        self._pool = ThreadPoolExecutor(CONCURRENCY)

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        names = list(names)
        return dict(zip(names, self._pool.map(self.get, names), strict=True))

    def write(self, items: Mapping[str, Any]) -> object:
        return list(self._pool.map(self.put, items.keys(), items.values()))


class S3fsMap(ObjectPeer):
    """The mapping that fsspec makes of s3fs."""

    title = "s3fs FSMap"

    def __init__(self, endpoint_url: str) -> None:
        s3fs = load("s3fs")
        file_system = s3fs.S3FileSystem(
            key=ANY_CREDENTIAL,
            secret=ANY_CREDENTIAL,
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": REGION},
            config_kwargs={"max_pool_connections": CONCURRENCY},
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._map = file_system.get_mapper(f"{BUCKET}/s3fs")

    def get(self, name: str) -> Any:
        return pickle.loads(self._map[name])

    def put(self, name: str, value: Any) -> object:
        self._map[name] = pickle.dumps(value, 5)
        return None

    def contains(self, name: str) -> bool:
        return name in self._map

    def names(self) -> list[str]:
        return list(self._map)

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        found = self._map.getitems(list(names))
        return {name: pickle.loads(data) for name, data in found.items()}

    def write(self, items: Mapping[str, Any]) -> object:
        return self._map.setitems({name: pickle.dumps(v, 5) for name, v in items.items()})

    def clear(self) -> object:
        return self._map.delitems(self.names())


class Obstore(ObjectPeer):
    """obstore; many objects by its coroutines.

    Args:
        endpoint_url: The server.
        concurrency: How many of them are under way.
    """

    title = "obstore"

    def __init__(self, endpoint_url: str, concurrency: int = CONCURRENCY) -> None:
        self._concurrency = concurrency
        self._store = load("obstore.store").S3Store(
            BUCKET,
            prefix="obstore",
            endpoint=endpoint_url,
            region=REGION,
            access_key_id=ANY_CREDENTIAL,
            secret_access_key=ANY_CREDENTIAL,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def get(self, name: str) -> Any:
        return pickle.loads(self._store.get(name).bytes())

    def put(self, name: str, value: Any) -> object:
        return self._store.put(name, pickle.dumps(value, 5))

    def contains(self, name: str) -> bool:
        return bool(self._store.head(name))

    def swap(self, name: str, value: Any) -> Callable[[], object]:
        etag = self._store.put(name, b"")["e_tag"]

        def overwrite() -> None:
            nonlocal etag
            data = pickle.dumps(value, 5)
            etag = self._store.put(name, data, mode={"e_tag": etag})["e_tag"]

        return overwrite

    def names(self) -> list[str]:
        return [item["path"] for page in self._store.list() for item in page]

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        async def read_one(name: str) -> tuple[str, Any]:
            reply = await self._store.get_async(name)
            return name, pickle.loads(await reply.bytes_async())

        return dict(_side_by_side(map(read_one, names), self._concurrency))

    def write(self, items: Mapping[str, Any]) -> object:
        async def write_one(name: str, value: Any) -> object:
            return await self._store.put_async(name, pickle.dumps(value, 5))

        return _side_by_side(map(write_one, items.keys(), items.values()), self._concurrency)

    def clear(self) -> object:
        return self._store.delete(self.names())


def _side_by_side(jobs: Iterable[Coroutine[Any, Any, Any]], concurrency: int) -> list[Any]:
    """Run coroutines, so many at once."""

    async def run_all() -> list[Any]:
        free = asyncio.Semaphore(concurrency)

        async def run_one(job: Coroutine[Any, Any, Any]) -> Any:
            async with free:
                return await job

        return await asyncio.gather(*map(run_one, jobs))

    return asyncio.run(run_all())


def optional_peers(endpoint_url: str) -> tuple[list[ObjectPeer], list[Omission]]:
    """Return the peers that are installed, and why the others are left out."""
    found: list[ObjectPeer] = []
    missing: list[Omission] = []
    for peer in (S3fsMap, Obstore):
        try:
            found.append(peer(endpoint_url))
        except PeerUnavailable as reason:
            missing.append(Omission(peer.title, str(reason)))
    return found, missing
