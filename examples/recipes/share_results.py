"""Share results among workers: each is computed by one of them and kept for all.

python examples/recipes/share_results.py
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

from persidict import FileDirDict

WORKERS = 4


def square_roots(results: FileDirDict[float], numbers: range) -> int:
    """Compute what nobody has computed yet; return how much that was."""
    computed = 0
    for number in numbers:
        if str(number) not in results:
            # of several workers at the same number, the first one's result stays
            results.setdefault(str(number), number**0.5)
            computed += 1
    return computed


def main() -> None:
    """Let all workers go over the same numbers, twice."""
    results = FileDirDict[float](base_dir="results", append_only=True)
    with ProcessPoolExecutor(WORKERS) as pool:  # a handle travels to other processes
        for attempt in ("first", "second"):
            jobs = [pool.submit(square_roots, results, range(100)) for _ in range(WORKERS)]
            computed = sum(job.result() for job in jobs)
            print(f"{attempt} time: {'nothing' if not computed else 'something'} was computed")
    print(f"{len(results)} results, the root of 49 is {results['49']}")


if __name__ == "__main__":
    main()
