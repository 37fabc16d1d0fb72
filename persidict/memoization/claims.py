"""Who computes what: claims that their holders keep alive, and others watch."""

from __future__ import annotations

import socket
import threading
import time
import uuid
import warnings
from contextlib import suppress
from os import getpid
from typing import Any, Final

from persidict import log
from persidict.jokers_and_status_flags import (
    ANY_ETAG,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    ETagIfExists,
)
from persidict.memoization.steps import Call, Pause, Steps
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple, as_key

_CLAIMS: Final = "memoize-claims"
_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.5


def check_holds_claims(claims: PersiDict[Any]) -> None:
    """Raise ValueError unless a dictionary can hold claims."""
    if claims.append_only:
        raise ValueError("claims are deleted: with once=True, give a mutable dictionary as claims=")
    if claims.is_read_only:
        raise ValueError("claims are written: with once=True, give a dictionary that takes writes")
    try:
        claims._check_value("")
        if claims._byte_form is not None:
            claims._encode(as_key(_CLAIMS), "")
    except TypeError as error:
        raise ValueError(
            f"claims are texts, which this dictionary cannot hold ({error}): with once=True,"
            " give another one as claims="
        ) from error


class Claims:
    """Who computes what, in a dictionary of texts.

    A claim is an item. Its holder writes it anew from time to time, and whoever waits watches
    its version, by a clock of his own: so clocks need not agree. A version that stands for
    as long as the lease is that of somebody who is dead, and is replaced, by its version.
    """

    def __init__(self, claims: PersiDict[Any], lease: float) -> None:
        self.dictionary = claims
        self.lease = lease

    def _key(self, key: NonEmptySafeStrTuple) -> NonEmptySafeStrTuple:
        return NonEmptySafeStrTuple(_CLAIMS, key)

    def claim(self, key: NonEmptySafeStrTuple, replaced: ETagIfExists) -> Steps:
        """Try to claim; return the claim, or None if somebody else has it."""
        claim = Claim(self, self._key(key))
        try:
            is_mine = yield Call(lambda: claim.take(replaced))
        except GeneratorExit:  # nobody does steps any more
            claim.release()
            raise
        except BaseException:
            with suppress(Exception):  # what cannot be taken back ends with the lease
                yield from claim.let_go()
            raise
        return claim if is_mine else None

    def watch(self, key: NonEmptySafeStrTuple) -> Steps:
        """Wait until a claim is gone or its holder dead; return the version to be replaced."""
        claimed = self._key(key)
        seen: ETagIfExists = ITEM_NOT_AVAILABLE
        since = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            etag = yield Call(lambda: _etag_of(self.dictionary, claimed))
            if etag is ITEM_NOT_AVAILABLE:
                return etag
            if etag != seen:
                seen, since = etag, time.monotonic()
            elif time.monotonic() - since >= self.lease:
                return etag
            yield Pause(min(pause, self.lease / 4))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _etag_of(dictionary: PersiDict[Any], key: NonEmptySafeStrTuple) -> ETagIfExists:
    return dictionary.get_item_if(
        key,
        condition=ANY_ETAG,
        expected_etag=ITEM_NOT_AVAILABLE,
        retrieve_value=NEVER_RETRIEVE,
    ).actual_etag


class Claim:
    """One caller's claim to compute something."""

    def __init__(self, claims: Claims, key: NonEmptySafeStrTuple) -> None:
        self._dictionary = claims.dictionary
        self._lease = claims.lease
        self._key = key
        self._token = f"{uuid.uuid4().hex} process {getpid()} on {socket.gethostname()}"
        self._signs_of_life = 0
        self._etag: ETagIfExists = ITEM_NOT_AVAILABLE
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, replaced: ETagIfExists) -> bool:
        """Write the claim in place of a version, or of none; return whether that was done."""
        result = self._dictionary.set_item_if(
            self._key,
            value=self._token,
            condition=ETAG_IS_THE_SAME,
            expected_etag=replaced,
            retrieve_value=NEVER_RETRIEVE,
        )
        self._etag = result.resulting_etag
        if result.condition_was_satisfied and replaced is not ITEM_NOT_AVAILABLE:
            log.info("replaced a claim that showed no life for %g s: %s", self._lease, self._name)
        return result.condition_was_satisfied

    @property
    def _name(self) -> str:
        return "/".join(self._key.strings)

    def begin_to_show_life(self) -> None:
        """Write the claim anew from time to time, in a thread."""
        self._thread = threading.Thread(target=self._live, name="persidict-claim", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        while not self._is_over.wait(self._lease / 4):
            self._signs_of_life += 1
            try:
                result = self._dictionary.set_item_if(
                    self._key,
                    value=f"{self._token}, {self._signs_of_life}",
                    condition=ETAG_IS_THE_SAME,
                    expected_etag=self._etag,
                    retrieve_value=NEVER_RETRIEVE,
                )
            except Exception as error:  # tried again after another quarter of the lease
                log.info("a claim could not show life: %s: %s", self._name, log.of(error))
                continue
            if not result.condition_was_satisfied:
                log.warning("this claim was taken for dead, and replaced: %s", self._name)
                return
            self._etag = result.resulting_etag

    def let_go(self) -> Steps:
        """Release the claim, once more if that is interrupted."""
        try:
            yield Call(self.release)
        except BaseException as error:
            if isinstance(error, GeneratorExit):  # nobody does steps any more
                self.release()
            else:
                yield Call(self.release)
            raise

    def release(self) -> None:
        """Delete the claim if it is this one, and warn if that is not possible."""
        self._is_over.set()
        if self._thread is not None and self._thread.is_alive():  # its start may be cut short
            self._thread.join()
        try:
            found = self._dictionary.get_with_etag(self._key)
            if isinstance(found.new_value, str) and found.new_value.startswith(self._token):
                self._dictionary.discard_if(
                    self._key, condition=ETAG_IS_THE_SAME, expected_etag=found.actual_etag
                )
        except Exception as error:
            warnings.warn(
                f"a claim could not be deleted, and stands for {self._lease} s:"
                f" {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
