"""Requests about one bucket: sent, looked at, and their failures explained."""

from __future__ import annotations

import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from botocore.exceptions import ClientError

from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.capabilities import Support
from persidict.stores.s3.client import Bucket, SharedClient, check_bucket, ensure_bucket
from persidict.stores.s3.errors import (
    NO_SUCH_BUCKET,
    S3Error,
    annotate,
    code_of,
    count_retries,
    is_absence,
    is_conflict,
)
from persidict.stores.s3.lineage import METADATA_KEY

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ETAG: Final = re.compile(r'(?:W/)?"[!#-+\--~]+"')
_CONFLICT_ATTEMPTS: Final = 12
_CLOCK_TOLERANCE_SECONDS: Final = 5.0
"""Times are cut to seconds, and the machines of one service may differ a little."""

PAUSE_SECONDS: Final = 0.02
_LONGESTPAUSE_SECONDS: Final = 2.0


class Look(NamedTuple):
    """What a reply tells of an object."""

    etag: ETagValue
    size: int
    last_modified: float
    lineage: str | None


def canonical_etag(etag: str) -> ETagValue:
    """Return an ETag in quotes, as HTTP has it, also where a server leaves them out."""
    return ETagValue(etag if etag.endswith('"') else f'"{etag}"')


def size_of(reply: dict[str, Any]) -> int:
    """Return how large an object is, of which a reply brings the whole or a range, or nothing."""
    total = reply.get("ContentRange", "").rpartition("/")[2]
    return int(total) if total else int(reply["ContentLength"])


def is_etag(text: str) -> bool:
    """Tell whether a text can be the ETag of an object: one in quotes, and no list of them."""
    return _ETAG.fullmatch(text) is not None


def pause(attempt: int) -> None:
    """Wait for a random time that grows with the attempts, so that rivals get out of step."""
    longest = min(PAUSE_SECONDS * 2 ** min(attempt, 16), _LONGESTPAUSE_SECONDS)
    time.sleep(random.uniform(0.0, longest))


def _lineage_of(reply: dict[str, Any]) -> str | None:
    metadata: dict[str, str] = reply.get("Metadata") or {}
    lineage = metadata.get(METADATA_KEY)
    if lineage is None and metadata:
        return next((v for name, v in metadata.items() if name.lower() == METADATA_KEY), None)
    return lineage


class S3Requests:
    """Requests about the objects of one bucket.

    Args:
        shared: The client and what goes with it.
        bucket_name: The bucket.
        create_bucket: Whether the bucket is created when it is missing.
    """

    def __init__(self, shared: SharedClient, bucket_name: str, *, create_bucket: bool) -> None:
        self.shared = shared
        self.bucket_name = bucket_name
        self._create_bucket = create_bucket
        self._bucket: Bucket | None = None
        if create_bucket:
            ensure_bucket(shared, bucket_name)

    @property
    def plain(self) -> S3Requests:
        """The same requests, where these are carried out in some other way."""
        return self

    @property
    def client(self) -> S3Client:
        """The boto3 client."""
        return self.shared.client

    @property
    def bucket(self) -> Bucket:
        """What this process knows of the bucket."""
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = self.shared.bucket(self.bucket_name)
        return bucket

    def send(self, operation: str, /, **params: Any) -> dict[str, Any]:
        """Send a request with boto3's words.

        What collides with another conditional request is sent again, a bounded number of
        times; a bucket that has vanished is created again.
        """
        request = getattr(self.shared.client, operation)
        retries = 0
        for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
            try:
                return request(Bucket=self.bucket_name, **params)  # type: ignore[no-any-return]
            except ClientError as error:
                retries = count_retries(error, retries)
                if is_conflict(error) and attempt < _CONFLICT_ATTEMPTS:
                    pause(attempt)
                    continue
                if code_of(error) != NO_SUCH_BUCKET or not self._create_bucket:
                    raise
            self.bucket.is_known_to_exist = False
            ensure_bucket(self.shared, self.bucket_name)
        return request(Bucket=self.bucket_name, **params)  # type: ignore[no-any-return]

    def support(self, ability: str, prefix: str) -> Support:
        """Tell what the server does with a condition; asks it the first time."""
        return self.bucket.probe.support(ability, self.send, prefix)

    def head(self, key: str) -> Look:
        """Look at an object.

        Raises:
            ObjectNotFound: There is none.
        """
        try:
            reply = self.send("head_object", Key=key)
        except S3Error as error:
            self.fail(error, "head_object", key)
        return self.read(key, reply)

    def head_since(self, key: str, begun: float) -> tuple[Look, bool]:
        """Look at an object, and tell whether its version is older than a change begun before.

        The age is told by the server's clock alone, which need not agree with this one's;
        where a reply bears no date, no version is known to be older.

        Args:
            key: The object's key.
            begun: When the change was begun, by `time.monotonic`.

        Raises:
            ObjectNotFound: There is none.
        """
        try:
            reply = self.send("head_object", Key=key)
        except S3Error as error:
            self.fail(error, "head_object", key)
        look = self.read(key, reply)
        date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
        if date is None:
            return look, False
        now = parsedate_to_datetime(date).timestamp()
        return look, now - look.last_modified > time.monotonic() - begun + _CLOCK_TOLERANCE_SECONDS

    def read(self, key: str, reply: dict[str, Any]) -> Look:
        """Take from the reply to a HEAD or a GET what it tells of the object."""
        etag = canonical_etag(reply["ETag"])
        lineage = _lineage_of(reply)
        self.bucket.lineages.remember(key, etag, lineage)
        return Look(etag, size_of(reply), reply["LastModified"].timestamp(), lineage)

    def fail(self, error: BaseException, operation: str, key: str = "", note: str = "") -> NoReturn:
        """Raise ObjectNotFound for absence, and anything else as it is, with a note."""
        name = self.client.meta.method_to_api_mapping[operation]
        if is_absence(error):
            self._rule_out_a_missing_bucket(error, name, key)
            raise ObjectNotFound(f"s3://{self.bucket_name}/{key}") from error
        if note:
            error.add_note(note)
        annotate(error, name, self.bucket_name, key)
        raise error

    def _rule_out_a_missing_bucket(self, error: BaseException, operation: str, key: str) -> None:
        """Raise if it is the bucket that is missing, which HEAD answers in the same way."""
        try:
            check_bucket(self.shared, self.bucket_name)
        except S3Error as missing:
            annotate(missing, operation, self.bucket_name, key)
            raise missing from error
