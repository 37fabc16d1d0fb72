"""How much of a dictionary is looked at, and shown to people."""

from __future__ import annotations

from typing import Final

SHOWN: Final = 20
"""How many items are shown."""

PAGE: Final = 1000
"""How many keys are looked at: what one request lists on S3."""
