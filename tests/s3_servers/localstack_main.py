"""Run LocalStack's S3 apart from all others; for the Python that LocalStack is installed in.

Its gateway listens on all interfaces, whatever host it is told, and all servers on a machine
keep their objects in one directory, whatever TMPDIR says: both are put right here.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import threading


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until the parent is gone."""
    from twisted.internet import endpoints  # type: ignore[import-not-found]

    on_loopback = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")
    endpoints.TCP4ServerEndpoint = on_loopback

    from localstack.services.s3 import provider  # type: ignore[import-not-found]

    provider.DEFAULT_S3_TMP_DIR = os.path.join(tempfile.gettempdir(), "s3")

    from localstack.runtime.main import main as serve  # type: ignore[import-not-found]

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    serve()


if __name__ == "__main__":
    main()
