"""A work queue: each job is done by exactly one worker, also when workers die.

python examples/recipes/work_queue.py
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor

from persidict import ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE, FileDirDict, NonEmptySafeStrTuple

LEASE_SECONDS = 60.0
WORKERS = 3


def claim(leases: FileDirDict[float], job: NonEmptySafeStrTuple) -> bool:
    """Take a job unless somebody alive has it; of several at once, one gets True."""
    found = leases.get_with_etag(job)
    if found.actual_etag is not ITEM_NOT_AVAILABLE and found.new_value > time.time():
        return False
    taken = leases.set_item_if(
        job,
        value=time.time() + LEASE_SECONDS,
        condition=ETAG_IS_THE_SAME,
        expected_etag=found.actual_etag,
    )
    return taken.condition_was_satisfied


def work(
    jobs: FileDirDict[int], leases: FileDirDict[float], done: FileDirDict[int]
) -> list[NonEmptySafeStrTuple]:
    """Work off what is there; return which jobs this worker did."""
    mine = []
    for job in list(jobs):
        if not claim(leases, job):
            continue
        number = jobs.get(job)
        if number is not None:  # else it was done between the listing and the claim
            done[job] = number * number
            jobs.discard(job)  # first the result, then the job: a death between loses nothing
            mine.append(job)
        leases.discard(job)
    return mine


def main() -> None:
    """Fill the queue, and have several processes empty it."""
    jobs = FileDirDict[int](base_dir="queue/jobs")
    leases = FileDirDict[float](base_dir="queue/leases")
    done = FileDirDict[int](base_dir="queue/done")
    jobs.update({f"job-{number:03}": number for number in range(50)})
    with ProcessPoolExecutor(WORKERS) as pool:
        workers = [pool.submit(work, jobs, leases, done) for _ in range(WORKERS)]
        did = [job for worker in workers for job in worker.result()]
    assert len(did) == len(set(did)) == 50
    print(f"{len(did)} jobs done, none twice, {len(jobs)} left; 7 squared is {done['job-007']}")


if __name__ == "__main__":
    main()
