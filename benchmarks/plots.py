"""Pictures of the tables, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.peers import load

_INCHES_PER_ROW = 0.24
_INCHES_AROUND = 1.2
_TARGET_COLOR, _AHEAD_COLOR, _BEHIND_COLOR = "black", "tab:blue", "tab:orange"


def plot(title: str, rows: Sequence[Row], path: Path) -> None:
    """Write a PNG that shows how many times as fast as the others persidict is.

    Args:
        title: The headline.
        rows: What to show, from top to bottom.
        path: The file; its directory must exist.

    Raises:
        PeerUnavailable: matplotlib is not installed.
    """
    load("matplotlib").use("agg")
    pyplot = load("matplotlib.pyplot")
    figure, axes = pyplot.subplots(
        figsize=(10, _INCHES_AROUND + _INCHES_PER_ROW * len(rows)), layout="constrained"
    )
    for position, row in enumerate(rows):
        _draw(axes, position, row)
    axes.axvline(1, color=_TARGET_COLOR, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
    axes.set_yticks(range(len(rows)), [f"{row.title} | {row.against}" for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(title)
    axes.set_xlabel("how many times as fast as the other; quartiles; | marks a target")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(axes: Any, position: int, row: Row) -> None:
    speed = row.speed
    color = _AHEAD_COLOR if speed.median >= 1 else _BEHIND_COLOR
    axes.barh(position, speed.median - 1, left=1, height=0.7, color=color)
    axes.plot([speed.low, speed.high], [position, position], color=_TARGET_COLOR, linewidth=1)
    target = row.at_least if row.at_most is None else 1 / row.at_most
    if target is not None:
        axes.plot([target], [position], marker="|", markersize=9, color=_TARGET_COLOR)
