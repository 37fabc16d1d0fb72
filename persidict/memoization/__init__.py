"""Keep the results of functions in a dictionary, for all processes, machines and runs."""

from persidict.memoization.decorator import (
    MemoizedCoroutine,
    MemoizedFunction,
    Memoizer,
    memoize,
)
from persidict.memoization.memo import MemoizeInfo

__all__ = ["MemoizeInfo", "MemoizedCoroutine", "MemoizedFunction", "Memoizer", "memoize"]
