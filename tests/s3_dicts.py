"""BasicS3Dicts for tests: on any endpoint, each with what it needs to be on its own."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from persidict import back_off
from persidict.basic_s3_dict import BasicS3Dict
from persidict.stores.s3 import requests
from tests.s3_servers.clients import CREDENTIALS, new_bucket_name

FORMATS = ["pkl", "json", "txt"]

ELSEWHERE = "PERSIDICT_TEST_S3"
"""The environment variable that names a server to test by hand: ``URL ACCESS_KEY SECRET_KEY``."""


def elsewhere_or_skip() -> tuple[str, str, str]:
    """Return endpoint and credentials of the server that the environment names, or skip."""
    if ELSEWHERE not in os.environ:
        pytest.skip(f"{ELSEWHERE} names no server")
    endpoint_url, access_key_id, secret_access_key = os.environ[ELSEWHERE].split()
    return endpoint_url, access_key_id, secret_access_key


def connect(
    endpoint_url: str,
    access_key_id: str = CREDENTIALS[0],
    secret_access_key: str = CREDENTIALS[1],
    **params: Any,
) -> BasicS3Dict[Any]:
    """Return a dictionary on an endpoint, in a bucket of its own unless told otherwise."""
    settings: dict[str, Any] = {
        "bucket_name": new_bucket_name(),
        "endpoint_url": endpoint_url,
        "region": "us-east-1",
        "aws_access_key_id": access_key_id,
        "aws_secret_access_key": secret_access_key,
    }
    return BasicS3Dict(**{**settings, **params})


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets attempts follow each other quickly, also in processes that are forked."""
    monkeypatch.setattr(back_off, "_LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(requests, "_LONGEST_BACK_OFF_SECONDS", 0.01)


@functools.cache
def common_bucket_name() -> str:
    """Return the name of a bucket for many dictionaries, each below a prefix of its own."""
    return new_bucket_name()


def maker(
    make: Callable[..., BasicS3Dict[Any]], serialization_format: str
) -> Callable[..., BasicS3Dict[Any]]:
    """Return a callable that makes empty dictionaries of a format, all in one bucket."""
    common: dict[str, Any] = {
        "bucket_name": common_bucket_name(),
        "serialization_format": serialization_format,
    }
    if serialization_format not in ("pkl", "json"):
        common["base_class_for_values"] = str

    def new_dict(**params: Any) -> BasicS3Dict[Any]:
        return make(**{**common, "root_prefix": uuid.uuid4().hex, **params})

    return new_dict
