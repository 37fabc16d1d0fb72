"""Run LocalStack's S3 apart from all others; for the Python that LocalStack is installed in.

Its gateway listens on all interfaces, whatever host it is told, and all servers on a machine
keep their objects in one directory, whatever TMPDIR says. A read that finds its object deleted
between two steps never lets go of the object's lock, so that whoever writes next waits for ever;
and one whose object is deleted while its body is sent breaks the connection behind it, so that
the next request on it is lost. All four are put right here.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import threading
from typing import Any


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _let_one_request_at_a_time_begin(s3: Any) -> None:
    """Have what a request finds out of an object still be true when it takes the object's lock.

    The body of a read is sent later, and whoever writes waits for it.
    """
    lock = threading.RLock()

    def alone(method: Any) -> Any:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return method(*args, **kwargs)

        return call

    for name in ("get_object", "put_object", "copy_object", "delete_object", "delete_objects"):
        setattr(s3, name, alone(getattr(s3, name)))


def main() -> None:
    """Serve until the parent is gone."""
    from twisted.internet import endpoints  # type: ignore[import-not-found]

    on_loopback = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")
    endpoints.TCP4ServerEndpoint = on_loopback

    from localstack.services.s3 import provider  # type: ignore[import-not-found]
    from localstack.services.s3.storage import ephemeral  # type: ignore[import-not-found]

    provider.DEFAULT_S3_TMP_DIR = os.path.join(tempfile.gettempdir(), "s3")
    _let_one_request_at_a_time_begin(provider.S3Provider)
    # closed when nobody holds it any more
    ephemeral.LockedSpooledTemporaryFile.close = lambda self: None

    from localstack.runtime.main import main as serve  # type: ignore[import-not-found]

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    serve()


if __name__ == "__main__":
    main()
