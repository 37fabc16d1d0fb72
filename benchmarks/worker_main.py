"""Runs statements for `benchmarks.worker`, in whatever interpreter this file is given to.

It is run by the interpreters of peers, so it imports nothing of this package. Each line on
standard input is a JSON array: ``["execute", code]`` runs code, ``["time", code, number]``
times it, ``["evaluate", code]`` returns a value. Each is answered by one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import timeit
from typing import Any


def answer(names: dict[str, Any], command: str, code: str, number: int = 1) -> Any:
    """Do what one line asks for."""
    match command:
        case "execute":
            exec(code, names)
            return None
        case "time":
            return timeit.Timer(code, globals=names).timeit(number)
        case "evaluate":
            return eval(code, names)
    raise ValueError(f"there is no command {command!r}")


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    names: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            reply = {"value": answer(names, *json.loads(line))}
        except Exception as error:  # told to the parent, which raises it
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
