"""Results as a part of a Markdown page."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.harness import Result, Row, table

BEGIN: Final = "<!-- results: written by python -m benchmarks --page -->"
END: Final = "<!-- end of results -->"
README_BEGIN: Final = "<!-- speed: written by python -m benchmarks --readme -->"
README_END: Final = "<!-- end of speed -->"
_CLEARLY: Final = 1.05


def behind(results: Iterable[Result]) -> str:
    """Return tables of what missed its target, and of where the other is clearly faster."""
    rows = [result for result in results if isinstance(result, Row)]
    missed = [row for row in rows if row.is_met is False]
    slower = [row for row in rows if row.at_most is None and row.ratio.low > _CLEARLY]
    slower.sort(key=lambda row: row.ratio.median, reverse=True)
    parts = []
    for title, chosen in (
        ("Targets that were missed", missed),
        ("Where another way is faster", slower),
    ):
        parts.append(f"### {title}\n\n{table(chosen) if chosen else 'None.'}")
    return "\n\n".join(parts)


def image(title: str, picture: Path, path: Path) -> str:
    """Return what shows a picture in a page."""
    place = Path(os.path.relpath(picture.resolve(), path.resolve().parent))
    return f"![{title}]({place.as_posix()})"


def update(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what is between the marks of a page.

    Raises:
        ValueError: The page has no marks.
    """
    old = path.read_text(encoding="utf-8")
    head, has_begin, rest = old.partition(begin)
    _, has_end, tail = rest.partition(end)
    if not (has_begin and has_end):
        raise ValueError(f"{path} has no lines {begin!r} and {end!r}")
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
