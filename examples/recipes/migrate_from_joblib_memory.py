"""Move from joblib.Memory: results that all machines share, also those that are there already.

Needs `pip install 'persidict[memoize,numpy]'`.

    python examples/recipes/migrate_from_joblib_memory.py
"""

from __future__ import annotations

import joblib  # type: ignore[import-untyped]

from persidict import FileDirDict, memoize

computed: list[int] = []


def square(number: int, verbose: bool = False) -> int:
    """Stand for what takes long."""
    computed.append(number)
    return number**2


def main() -> None:
    """Keep some results the old way, take them over, and go on the new way."""
    memory = joblib.Memory("joblib_cache", verbose=0)
    old = memory.cache(square, ignore=["verbose"])
    assert [old(number) for number in range(5)] == [0, 1, 4, 9, 16]

    # memory.cache(f, ignore=["verbose"]) becomes memoize(results, ignore="verbose")(f):
    # any dictionary holds the results, and with once=True only one process computes each
    results = FileDirDict[int](base_dir="results")
    new = memoize(results, ignore="verbose", once=True)(square)

    # what was computed already moves with the arguments that it was computed for
    for number in range(5):
        results.setdefault(new.key_for(number), old(number))
    computed.clear()
    squares = [new(number, verbose=True) for number in range(6)]
    print(f"{squares}; computed anew: {computed}")

    # func.clear() becomes clearing what the results are kept in, and one is forgotten by
    new.forget(5)
    print(f"{len(results)} results are kept")


if __name__ == "__main__":
    main()
