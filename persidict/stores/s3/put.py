"""Writing an object under a condition, also when replies get lost."""

from __future__ import annotations

import time
from typing import Any, Final, NoReturn

from botocore.exceptions import ClientError

from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import (
    ITEM_NOT_AVAILABLE,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
)
from persidict.stores.object_store import Buffer
from persidict.stores.s3.capabilities import ETagForm, Support
from persidict.stores.s3.errors import (
    OUTCOME_UNKNOWN,
    S3Error,
    is_absence,
    is_passing,
    leaves_outcome_open,
    status_of,
    was_retried,
)
from persidict.stores.s3.lineage import (
    METADATA_KEY,
    Finding,
    Outcome,
    extend,
    find_write,
    first,
    new_token,
)
from persidict.stores.s3.requests import Look, S3Requests, canonical_etag, pause

_LOOKS: Final = 8


class _Readback:
    """What became of one write, told by what is there now; holds nothing of its bytes.

    Args:
        requests: The bucket.
        key: The object's key.
        expected: The version to replace; see `Put`.
    """

    def __init__(self, requests: S3Requests, key: str, expected: ETagIfExists | None) -> None:
        self.token = new_token()
        self._requests = requests
        self._key = key
        self._expected = expected
        self._begun = time.monotonic()

    def find(self) -> Finding:
        """Look for the write in what is there now."""
        try:
            look, is_older = self._look()
        except (ObjectNotFound, *S3Error):
            return Finding(Outcome.UNKNOWN)
        if is_older:
            return Finding(Outcome.NOT_WRITTEN)
        return find_write(self.token, self._expected, look.lineage, look.etag)

    def version_made(self, seen_etag: ETagValue | None) -> ETagValue | None:
        """Return the version that the write made, None if it did not take place.

        Costs a request, unless this process knows the lineage of the version seen since.
        """
        etag, lineage = seen_etag, None
        if etag is not None:
            lineage = self._requests.bucket.lineages.recall(self._key, etag)
        if etag is None or lineage is None:
            try:
                look, _ = self._look()
            except ObjectNotFound:
                return None
            except S3Error as error:
                error.add_note(OUTCOME_UNKNOWN)
                raise
            etag, lineage = look.etag, look.lineage
        return find_write(self.token, self._expected, lineage, etag).etag

    def _look(self) -> tuple[Look, bool]:
        """Look at the object, and again if that fails in passing."""
        for attempt in range(1, _LOOKS):
            try:
                return self._requests.head_since(self._key, self._begun)
            except S3Error as error:
                if not is_passing(error):
                    raise
                pause(attempt)
        return self._requests.head_since(self._key, self._begun)


class _WriteRefused(PreconditionFailed):
    """A refusal that may be the answer to the second delivery of a request."""

    def __init__(self, key: str, readback: _Readback, *, actual_etag: Any = None) -> None:
        super().__init__(key, actual_etag=actual_etag)
        self._readback = readback

    def written_after_all(self, seen_etag: ETagValue | None) -> ETagValue | None:
        return self._readback.version_made(seen_etag)


class Put:
    """One write of one object, however many requests it takes.

    Args:
        requests: The bucket.
        key: The object's key.
        expected: The version to replace; ITEM_NOT_AVAILABLE: insert; None: whatever is there.
    """

    def __init__(self, requests: S3Requests, key: str, expected: ETagIfExists | None) -> None:
        self._requests = requests
        self._key = key
        self._expected = expected
        self._readback = _Readback(requests.plain, key, expected)
        token = self._readback.token
        if expected is None or isinstance(expected, ItemNotAvailableFlag):
            self._lineage = first(token, expected)
        else:
            known = requests.bucket.lineages.recall(key, expected)
            self._lineage = extend(token, expected, known)
        self._may_have_acted = False
        self._tried_both_forms = False
        self._request: dict[str, Any] = {}

    def send(self, data: Buffer, content_type: str, prefix: str) -> ETagValue:
        """Write the object; the port's `put`."""
        self._request = request = self._describe(data, content_type, prefix)
        etag = None
        while etag is None:
            try:
                reply = self._requests.send("put_object", **request)
            except S3Error as error:
                etag = self._settle(error)
            else:
                etag = canonical_etag(reply["ETag"])
                if "IfMatch" in request:
                    self._requests.bucket.etag_form.learn(request["IfMatch"])
        self._requests.bucket.lineages.remember(self._key, etag, self._lineage)
        return etag

    def _describe(self, data: Buffer, content_type: str, prefix: str) -> dict[str, Any]:
        request: dict[str, Any] = {
            "Key": self._key,
            "Body": data if isinstance(data, bytes) else bytes(data),
            "ContentType": content_type,
            "Metadata": {METADATA_KEY: self._lineage},
        }
        if isinstance(self._expected, ItemNotAvailableFlag):
            self._require("put_if_none_match", prefix)
            request["IfNoneMatch"] = "*"
        elif self._expected is not None:
            self._require("put_if_match", prefix)
            request["IfMatch"] = self._requests.bucket.etag_form.write(self._expected)
        return request

    def _require(self, ability: str, prefix: str) -> None:
        requests = self._requests
        try:
            support = requests.support(ability, prefix)
        except S3Error as error:
            requests.fail(error, "put_object", self._key)
        if support is Support.ENFORCED:
            return
        header = "If-Match" if ability == "put_if_match" else "If-None-Match"
        status = requests.bucket.probe.status(ability)
        server = f"the S3 server at {requests.client.meta.endpoint_url}"
        if status == 403:
            finding = (
                f"{server} does not let these credentials find out whether it enforces {header}"
                " on PUT (403)"
            )
        else:
            answer = "ignores it and answers" if status == 200 else "answers"
            finding = f"{server} does not enforce {header} on PUT (it {answer} {status})"
        raise BackendError(
            f"{finding}, so that nothing is written under a condition."
            f" Bucket {requests.bucket_name!r}, key {self._key!r}",
            backend="s3",
            operation="put",
            key=self._key,
        )

    def _settle(self, error: Exception) -> ETagValue | None:
        """Find out what became of a write that was not answered with success.

        Returns:
            The version that the write made after all; None: try again.
        """
        if isinstance(error, ClientError) and was_retried(error):
            self._may_have_acted = True
        if self._expected is not None and (status_of(error) == 412 or is_absence(error)):
            return self._settle_refusal(error)
        if leaves_outcome_open(error):
            finding = self._readback.find()
            if finding.outcome is Outcome.WRITTEN:
                return finding.etag
            note = "" if finding.outcome is Outcome.NOT_WRITTEN else OUTCOME_UNKNOWN
            self._raise(error, note)
        self._raise(error)

    def _settle_refusal(self, error: Exception) -> ETagValue | None:
        if not self._may_have_acted:
            if "IfMatch" in self._request and not self._requests.bucket.etag_form.is_proven:
                self._examine_the_form(error)
                return None
            raise self._refusal(ITEM_NOT_AVAILABLE if is_absence(error) else None) from error
        finding = self._readback.find()
        if finding.outcome is Outcome.UNKNOWN:
            self._raise(error, OUTCOME_UNKNOWN)
        if finding.outcome is Outcome.NOT_WRITTEN:
            raise PreconditionFailed(self._key) from error
        return finding.etag

    def _examine_the_form(self, error: Exception) -> None:
        """Switch to the other form of the ETag if the version required is the current one.

        Raises:
            PreconditionFailed: It is not: the refusal is right.
            BackendError: The server has refused it in both forms.
        """
        try:
            current = self._requests.head(self._key).etag
        except ObjectNotFound:
            raise self._refusal(ITEM_NOT_AVAILABLE) from error
        if current != self._expected:
            raise self._refusal(current) from error
        if self._tried_both_forms:
            self._requests.bucket.probe.note_misread("put_if_match")
            self._require("put_if_match", "")
        self._tried_both_forms = True
        self._request["IfMatch"] = ETagForm.other(self._request["IfMatch"])

    def _refusal(self, actual: ETagIfExists | None) -> PreconditionFailed:
        return _WriteRefused(self._key, self._readback, actual_etag=actual)

    def _raise(self, error: BaseException, note: str = "") -> NoReturn:
        self._requests.fail(error, "put_object", self._key, note)
