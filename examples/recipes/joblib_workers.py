"""Workers of joblib that share results: each is computed by one of them.

Needs `pip install 'persidict[memoize]'`. With `--url s3://my-bucket/results`, and joblib's
backend for dask or Ray, they are on many machines.

    python examples/recipes/joblib_workers.py
"""

from __future__ import annotations

import sys

import joblib  # type: ignore[import-untyped]

from persidict import PersiDict, memoize, open_dict


def power_of_two(log: PersiDict[int], number: int) -> int:
    """Compute, and note that it was done."""
    log.transform_item(
        str(number), transformer=lambda times: times + 1 if isinstance(times, int) else 1
    )
    return 1 << number


def main(url: str) -> None:
    """Have four processes work on ten numbers, each of which is asked for three times."""
    place = open_dict(url)
    results, log = place.get_subdict("results"), place.get_subdict("log")
    power = memoize(results, ignore="log", once=True)(power_of_two)  # it travels to the workers
    found = joblib.Parallel(n_jobs=4)(
        joblib.delayed(power)(log, number) for number in [*range(10)] * 3
    )
    assert found == [2**number for number in range(10)] * 3
    print(f"{len(found)} results, {sum(log.values())} computed")


if __name__ == "__main__":
    try:
        main(sys.argv[2] if sys.argv[1:2] == ["--url"] else "shared")
    except (IndexError, ValueError) as mistake:
        sys.exit(f"joblib_workers.py --url URL: {mistake}")
