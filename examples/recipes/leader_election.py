"""Leader election: of many workers one leads, until its lease runs out or it resigns.

python examples/recipes/leader_election.py
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Barrier, Thread

from persidict import ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE, LocalDict, PersiDict


@dataclass(frozen=True)
class Lease:
    """Who leads, and until when in POSIX seconds."""

    leader: str
    expires: float


def campaign(offices: PersiDict[Lease], name: str, seconds: float) -> bool:
    """Become or stay the leader; tell whether that succeeded. Call it again before it expires."""
    found = offices.get_with_etag("leader")
    lease = found.new_value
    is_free = found.actual_etag is ITEM_NOT_AVAILABLE or lease.expires < time.time()
    if not is_free and lease.leader != name:
        return False
    won = offices.set_item_if(
        "leader",
        value=Lease(name, time.time() + seconds),
        condition=ETAG_IS_THE_SAME,  # nobody was faster since the look above
        expected_etag=found.actual_etag,
    )
    return won.condition_was_satisfied


def resign(offices: PersiDict[Lease], name: str) -> None:
    """Give the lead up, if it is still this worker's."""
    found = offices.get_with_etag("leader")
    if found.actual_etag is not ITEM_NOT_AVAILABLE and found.new_value.leader == name:
        offices.discard_if("leader", condition=ETAG_IS_THE_SAME, expected_etag=found.actual_etag)


def main() -> None:
    """Hold two elections among eight workers."""
    # a FileDirDict for the processes of a machine, a BasicS3Dict for machines: nothing else changes
    offices = LocalDict[Lease]()
    for _ in range(2):
        start, leaders = Barrier(8), list[str]()

        def run(name: str, start: Barrier = start, leaders: list[str] = leaders) -> None:
            start.wait()
            if campaign(offices, name, seconds=60):
                leaders.append(name)

        workers = [Thread(target=run, args=(f"worker-{number}",)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        (leader,) = leaders
        assert campaign(offices, leader, seconds=60), "a leader can renew its lease"
        resign(offices, leader)
    print("two elections, one leader each")


if __name__ == "__main__":
    main()
