"""How the libraries of both clouds reach their servers: by ``requests``, in each process anew."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter

ClientType = TypeVar("ClientType")

_WITHOUT_A_CONNECTION: Final = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    requests.ConnectTimeout,
    ssl.SSLCertVerificationError,
)

_TIMED_OUT: Final = 408


class ClientOfProcess(Generic[ClientType]):
    """A client of a library, made in each process for itself: connections survive no fork.

    Args:
        make: Makes one.
    """

    def __init__(self, make: Callable[[], ClientType]) -> None:
        self._make = make
        self._made: tuple[int, ClientType] | None = None

    @property
    def client(self) -> ClientType:
        """The client of this process."""
        made = self._made
        if made is None or made[0] != os.getpid():
            made = self._made = (os.getpid(), self._make())
        return made[1]


def keep_connections(session: requests.Session, how_many: int) -> None:
    """Have a session keep as many connections to a server as there may be requests."""
    adapter = HTTPAdapter(pool_maxsize=how_many, pool_connections=4)
    session.mount("https://", adapter)
    session.mount("http://", adapter)


def refuses(status: int) -> bool:
    """Tell whether a status says that nothing was done.

    A success that is an error all the same, a redirection or a time-out does not say so.
    """
    return 400 <= status < 500 and status != _TIMED_OUT


def never_left(error: BaseException) -> bool:
    """Tell whether a request failed before there was a connection that it could have taken."""
    inside: BaseException | None = error
    while inside is not None:
        if isinstance(inside, _WITHOUT_A_CONNECTION):
            return True
        wrapped = (
            getattr(inside, "inner_exception", None),  # Azure's
            getattr(inside, "reason", None),  # urllib3's
            *inside.args,
            inside.__cause__,
        )
        inside = next((e for e in wrapped if isinstance(e, BaseException)), None)
    return False
