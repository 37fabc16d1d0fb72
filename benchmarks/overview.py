"""One picture of how fast persidict is on S3 beside other libraries, from the results of a run."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import published
from benchmarks.harness import Result, Row
from benchmarks.peers import load

NAME: Final = "speed.png"
TITLE: Final = "Items in a second on S3, with persidict and other libraries"

_OPERATIONS: Final = {
    "get": "read one item",
    "put": "write one item",
    "items(), per object": "read many items",
    "update, per object": "write many items",
}
"""What the rows are called, and what a reader is told."""

_LIBRARIES: Final = {
    "persidict": "",
    "obstore": "////",
    "s3fs": "....",
    "boto3": "xxxx",
    published.NAME: "",
}
"""In the order of the picture, with a hatching each: it is readable without colours."""

_FACES: Final = {"persidict": "black", published.NAME: "0.8"}
_DISTANCES: Final = ("0 ms away", "20 ms away")
_TITLE: Final = re.compile(r"(.*), (\d+ ms away)")


class Panel(NamedTuple):
    """One operation at one distance.

    Attributes:
        operation: What is done, in words.
        distance: How far away the server is.
        speeds: Operations in a second, by library; one that was not measured is left out.
    """

    operation: str
    distance: str
    speeds: Mapping[str, float]


def panels(results: Iterable[Result]) -> list[Panel]:
    """Return what there is to be shown of the results of a run.

    The speed of persidict is the median of its rows, that of another library follows from
    the ratio to it in its own row, which was measured in turn.
    """
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in results:
        if not isinstance(row, Row):
            continue
        title = _TITLE.fullmatch(row.title)
        library = _library(row.against)
        if title is None or library is None:
            continue
        if title[1] in _OPERATIONS and title[2] in _DISTANCES:
            rows = found.setdefault((title[1], title[2]), {})
            if library not in rows or row.floor.median < rows[library].floor.median:
                rows[library] = row  # the faster of two ways to use the same library
    order = list(_OPERATIONS)
    return [
        Panel(_OPERATIONS[operation], distance, _speeds(rows))
        for (operation, distance), rows in sorted(
            found.items(),
            key=lambda entry: (order.index(entry[0][0]), _DISTANCES.index(entry[0][1])),
        )
    ]


def _library(against: str) -> str | None:
    for name in sorted(_LIBRARIES, key=len, reverse=True):
        if against == name or against.startswith((f"{name} ", f"{name},")):
            return name
    return None


def _speeds(rows: Mapping[str, Row]) -> dict[str, float]:
    own = 1 / statistics.median(row.subject.median for row in rows.values())
    speeds = {name: own * row.ratio.median for name, row in rows.items()}
    speeds["persidict"] = own
    return {name: speeds[name] for name in _LIBRARIES if name in speeds}


def sentence(shown: Iterable[Panel]) -> str:
    """Say in one sentence what the picture shows of boto3, for who sees no pictures."""
    parts = []
    for operation, distance, speeds in shown:
        if "boto3" in speeds:
            times = speeds["persidict"] / speeds["boto3"]
            parts.append(f"{operation}, {distance}: {times:.1f} x")
    return f"Times the speed of boto3: {'; '.join(parts)}." if parts else ""


def draw(shown: list[Panel], path: Path) -> None:
    """Write the picture as a PNG: a row for each operation, a column for each distance.

    Args:
        shown: What there is to be shown; at least one panel.
        path: The file; its directory is made.

    Raises:
        PeerUnavailable: matplotlib is not installed.
    """
    load("matplotlib").use("agg")
    pyplot = load("matplotlib.pyplot")
    rows = [title for title in _OPERATIONS.values() if any(p.operation == title for p in shown)]
    columns = [far for far in _DISTANCES if any(panel.distance == far for panel in shown)]
    figure, grid = pyplot.subplots(
        len(rows),
        len(columns),
        figsize=(1.5 + 4.2 * len(columns), 0.9 + 1.45 * len(rows)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for panel in shown:
        row, column = rows.index(panel.operation), columns.index(panel.distance)
        axes = grid[row][column]
        axes.set_axis_on()
        _draw(axes, panel, is_left=column == 0)
        if row == len(rows) - 1:
            axes.set_xlabel("items in a second (log scale)")
    speeds = [speed for panel in shown for speed in panel.speeds.values()]
    # the labels stand to the right of the bars
    grid[0][0].set_xlim(min(speeds) / 2, max(speeds) * 5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(axes: Any, panel: Panel, *, is_left: bool) -> None:
    for position, (name, speed) in enumerate(panel.speeds.items()):
        axes.barh(
            position,
            speed,
            height=0.72,
            color=_FACES.get(name, "white"),
            edgecolor="black",
            linewidth=0.8,
            hatch=_LIBRARIES[name],
        )
        weight = "bold" if name == "persidict" else "normal"
        axes.text(speed * 1.12, position, f"{speed:,.0f}", va="center", fontsize=9, weight=weight)
    axes.set_xscale("log")
    axes.set_yticks(range(len(panel.speeds)), list(panel.speeds) if is_left else [])
    axes.set_ylim(len(panel.speeds) - 0.4, -0.6)
    axes.set_title(f"{panel.operation}, {panel.distance}", fontsize=10, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
