"""What real servers answer to requests under conditions, as seen on the wire."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

from botocore.exceptions import ClientError

from .clients import new_bucket, s3_client

MADE_UP = '"00000000000000000000000000000000"'
"""An ETag that no object has."""

Answer: TypeAlias = int | tuple[int, str]
"""The status of a success, or status and code of an error."""


class Probe:
    """Sends single requests to one bucket and tells their status."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self.client = s3_client(endpoint_url)
        self.bucket = new_bucket(self.client)

    def status(self, operation: str, key: str = "present", **arguments: Any) -> Answer:
        """Return the status of a success, or status and code of an error."""
        try:
            reply = getattr(self.client, operation)(Bucket=self.bucket, Key=key, **arguments)
        except ClientError as error:
            response = error.response
            return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]
        status: int = reply["ResponseMetadata"]["HTTPStatusCode"]
        return status

    def put(self, key: str = "present", body: bytes = b"content", **arguments: Any) -> Any:
        return self.status("put_object", key, Body=body, **arguments)

    def etag(self, key: str = "present") -> str:
        return self.client.head_object(Bucket=self.bucket, Key=key)["ETag"]

    def resolve(self, value: str) -> str:
        """Return the condition's value for the object that is present."""
        known = {"same": self.etag(), "unquoted": self.etag().strip('"')}
        return known.get(value, value)

    def keys(self) -> list[str]:
        listing = self.client.list_objects_v2(Bucket=self.bucket)
        return [item["Key"] for item in listing.get("Contents", [])]


UNMET = (412, "PreconditionFailed")
ABSENT = (404, "NoSuchKey")
REFUSED = (501, "NotImplemented")

SERVERS = ("aws", "moto", "localstack", "ceph", "no-conditions")
"""The servers that the columns below are about."""

_WRITES: dict[tuple[str, str, str], list[Answer]] = {
    ("IfNoneMatch", "*", "present"): [UNMET, UNMET, UNMET, UNMET, 200],
    ("IfNoneMatch", "*", "absent"): [200, 200, 200, 200, 200],
    ("IfNoneMatch", "same", "present"): [REFUSED, 200, REFUSED, 200, 200],
    ("IfNoneMatch", MADE_UP, "present"): [REFUSED, 200, REFUSED, 200, 200],
    ("IfMatch", "same", "present"): [200, 200, 200, UNMET, 200],
    ("IfMatch", "unquoted", "present"): [200, 200, 200, 200, 200],
    ("IfMatch", MADE_UP, "present"): [UNMET, UNMET, UNMET, UNMET, 200],
    ("IfMatch", MADE_UP, "absent"): [ABSENT, ABSENT, ABSENT, UNMET, 200],
    ("IfMatch", "*", "present"): [REFUSED, UNMET, REFUSED, 200, 200],
    ("IfMatch", "*", "absent"): [REFUSED, ABSENT, REFUSED, UNMET, 200],
}
_DELETES: dict[tuple[str, str, str], list[Answer]] = {
    ("IfMatch", "same", "present"): [204, 204, REFUSED, 204, 204],
    ("IfMatch", MADE_UP, "present"): [UNMET, UNMET, REFUSED, 204, 204],
    ("IfMatch", MADE_UP, "absent"): [UNMET, ABSENT, REFUSED, 204, 204],
    ("IfMatch", "*", "present"): [204, UNMET, REFUSED, 204, 204],
    ("IfMatch", "*", "absent"): [UNMET, ABSENT, REFUSED, 204, 204],
}

_READS: dict[tuple[str, str, str, str], Answer] = {
    ("get_object", "IfNoneMatch", "same", "present"): (304, "304"),
    ("get_object", "IfNoneMatch", MADE_UP, "present"): 200,
    ("get_object", "IfMatch", "same", "present"): 200,
    ("get_object", "IfMatch", MADE_UP, "present"): UNMET,
    ("head_object", "IfNoneMatch", "same", "present"): (304, "304"),
    ("head_object", "IfNoneMatch", MADE_UP, "present"): 200,
    ("head_object", "IfMatch", "same", "present"): 200,
    ("head_object", "IfMatch", MADE_UP, "present"): (412, "412"),
}
"""On reads, all servers agree."""


class Case(NamedTuple):
    """A request under a condition.

    Attributes:
        operation: The client's method.
        condition: Its argument that holds the condition.
        value: The condition; ``same`` and ``unquoted`` stand for the current ETag.
        key: ``present`` or ``absent``.
    """

    operation: str
    condition: str
    value: str
    key: str


def expected_answers(server: str) -> dict[Case, Answer]:
    """Return what one of `SERVERS` answers to each case."""
    column = SERVERS.index(server)
    writes = {Case("put_object", *case): row[column] for case, row in _WRITES.items()}
    deletes = {Case("delete_object", *case): row[column] for case, row in _DELETES.items()}
    return writes | deletes | {Case(*case): answer for case, answer in _READS.items()}


def answer_to(endpoint_url: str, case: Case) -> Answer:
    """Return what a server answers to a case, asked in a bucket of its own."""
    probe = Probe(endpoint_url)
    probe.put("present")
    body = {"Body": b"new"} if case.operation == "put_object" else {}
    condition = {case.condition: probe.resolve(case.value)}
    return probe.status(case.operation, case.key, **body, **condition)


def race(operation: Callable[[int], Any], clients: int = 8) -> list[Any]:
    """Run an operation in threads that start together; return what each of them got."""
    barrier = threading.Barrier(clients)

    def run(number: int) -> Any:
        barrier.wait()
        return operation(number)

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(run, range(clients)))
