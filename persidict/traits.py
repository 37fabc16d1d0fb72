"""What storages differ in, as far as anything above them has to know."""

from __future__ import annotations

from typing import NamedTuple


class Traits(NamedTuple):
    """What a storage tells of itself, once, to all that is built on it.

    Attributes:
        reads_are_cheap: Whether a look costs far less than a write (RAM, files), or as much
            (a network): whether to look before inserting, or to insert and see.
        listing_brings_versions: Whether a listing that tells versions and times costs no
            more than one of names alone.
        back_off_seconds: What an attempt takes at least. The unit of the pause between two is
            what they have taken on average so far, but not less. 0: there is no pause, because
            writers queue, and who is refused has just had its turn.
    """

    reads_are_cheap: bool = True
    listing_brings_versions: bool = False
    back_off_seconds: float = 0.001
