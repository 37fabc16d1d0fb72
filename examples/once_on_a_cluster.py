"""A thousand results, each computed once, however many workers of a cluster ask for it.

On one machine, with a cluster of processes and an S3 server of its own:

    python examples/once_on_a_cluster.py

On your cluster, with your bucket, and credentials where boto3 finds them on every worker:

    python examples/once_on_a_cluster.py --scheduler tcp://scheduler:8786 --bucket my-results

Each number is asked for twice, by several workers at about the same time. With `once=True` the
first one puts a claim into the bucket and computes, the others wait for its result; if it is
killed, one of them takes its place. Run it again, on the same bucket, and nothing is computed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any

from index_stdlib import TROUBLE, start_s3_server

from persidict import BasicS3Dict, memoize

try:
    import distributed
except ModuleNotFoundError:
    sys.exit("once_on_a_cluster.py: it needs dask: pip install distributed")

NUMBERS = 1000
TIMES_ASKED = 2


def stopping_time(start: int) -> tuple[int, int]:
    """Return how many steps the Collatz sequence takes from here to 1, and its summit."""
    number, steps, summit = start, 0, start
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps, summit = steps + 1, max(summit, number)
    return steps, summit


def result_of(place: BasicS3Dict[Any], start: int) -> tuple[int, int]:
    """Compute a result unless somebody has, and note who computed it; runs on the workers."""
    results, log = place.get_subdict("results"), place.get_subdict("log")

    @memoize(results, once=True, key=str)
    def computed_once(number: int) -> tuple[int, int]:
        log[str(number), f"{random.getrandbits(64):016x}"] = distributed.get_worker().name
        return stopping_time(number)

    return computed_once(start)


def open_place(bucket_name: str | None) -> BasicS3Dict[Any]:
    """Open the bucket, or one on a server inside of this process."""
    if bucket_name:
        return BasicS3Dict(bucket_name=bucket_name, root_prefix="collatz")
    return BasicS3Dict(
        bucket_name="once",
        root_prefix="collatz",
        endpoint_url=start_s3_server(),
        aws_access_key_id="any",
        aws_secret_access_key="any",
        region="us-east-1",
    )


def main() -> None:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scheduler", help="the address of a dask scheduler")
    parser.add_argument("--bucket", help="a bucket that all workers reach")
    parser.add_argument("--numbers", type=int, default=NUMBERS)
    parser.add_argument("--workers", type=int, default=4, help="how many, without --scheduler")
    arguments = parser.parse_args()
    if arguments.scheduler and not arguments.bucket:
        parser.error("--scheduler needs --bucket: other machines do not reach a server in here")

    if min(arguments.numbers, arguments.workers) < 1:
        parser.error("--numbers and --workers must be at least 1")
    try:
        compute_once(arguments)
    except TROUBLE as trouble:
        sys.exit(f"once_on_a_cluster.py: {trouble}")


def compute_once(arguments: argparse.Namespace) -> None:
    """Ask for everything, in any order, and tell what that has cost."""
    with ExitStack() as stack:
        place = open_place(arguments.bucket)
        cluster = arguments.scheduler or stack.enter_context(
            distributed.LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=arguments.workers, threads_per_worker=4, dashboard_address=None
            )
        )
        client = stack.enter_context(
            distributed.Client(cluster)  # type: ignore[no-untyped-call]
        )
        asked = [*range(1, arguments.numbers + 1)] * TIMES_ASKED
        random.shuffle(asked)
        before = len(place.get_subdict("log"))
        found = client.gather(client.map(result_of, [place] * len(asked), asked, pure=False))

        assert found == [stopping_time(number) for number in asked]
        log = place.get_subdict("log")
        times_computed = Counter(number for number, _ in log)
        most, longest = max(zip((steps for steps, _ in found), asked, strict=True))
        print(f"{len(asked)} results asked for, {len(log) - before} computed")
        print(f"workers that computed: {len(set(log.values()))}")
        print(f"computed more than once: {sum(times > 1 for times in times_computed.values())}")
        print(f"the longest way: {most} steps from {longest}")


if __name__ == "__main__":
    main()
