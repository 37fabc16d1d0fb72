"""Install the real servers that the tests start, before any test waits for one.

.venv/bin/python -m tests.install_servers
"""

from __future__ import annotations

from tests import azurite
from tests.s3_servers import localstack, seaweedfs

if __name__ == "__main__":
    localstack.install()
    seaweedfs.install()
    azurite.install()
