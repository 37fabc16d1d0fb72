"""Workers of Ray that share results: each is computed by one of them.

Needs `pip install ray 'persidict[memoize]'`. With `s3://my-bucket/results` as its argument, and
`ray.init("auto")` on a cluster, they are on many machines.

    python examples/recipes/ray_workers.py
"""

from __future__ import annotations

import sys

import ray  # type: ignore[import-not-found]

from persidict import PersiDict, memoize, open_dict


def power_of_two(log: PersiDict[int], number: int) -> int:
    """Compute, and note that it was done."""
    log.transform_item(
        str(number), transformer=lambda times: times + 1 if isinstance(times, int) else 1
    )
    return 1 << number


def main(place_of_results: str) -> None:
    """Have workers work on ten numbers, each of which is asked for three times."""
    place = open_dict(place_of_results)
    results, log = place.get_subdict("results"), place.get_subdict("log")
    power = memoize(results, ignore="log", once=True)(power_of_two)
    remote = ray.remote(lambda log, number: power(log, number))  # handles travel to the workers
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    found = ray.get([remote.remote(log, number) for number in [*range(10)] * 3])
    assert found == [2**number for number in range(10)] * 3
    print(f"{len(found)} results, {sum(log.values())} computed")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "shared")
    except ValueError as mistake:
        sys.exit(f"ray_workers.py: {mistake}")
