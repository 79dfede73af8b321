"""Where the labels of a figure's points stand, so that none hides another, a point or a line.

A label goes to the nearest place that is free; one that has to go further has a thin line to its point. All lengths
are in points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from bench.figures import INK

Point = tuple[float, float]

GAP = 1.0
"""Between two labels, and between a label and what it must not touch."""
TURNS, STEP = 24, 2.0
"""Directions in which a place is sought, and how far apart the rings of places lie."""
PASSED = 0.5
"""What a line that crosses a mark is worth, beside 1 for a label on something."""
FREE = 5.0
"""From so far on, between its nearest edge and the mark, a label has a line."""


@dataclass(frozen=True)
class Box:
    """What a label or a mark covers."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, centre: Point, width: float, height: float) -> Box:
        """A box of a size about a centre."""
        (x, y), w, h = centre, width / 2, height / 2
        return cls(x - w, y - h, x + w, y + h)

    @property
    def centre(self) -> Point:
        """Its middle."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def meets(self, other: Box, gap: float = 0.0) -> bool:
        """Whether less than a gap lies between two boxes."""
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.bottom < other.top + gap
            and other.bottom < self.top + gap
        )

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )

    def nearest(self, point: Point) -> Point:
        """Its place that is nearest to a point."""
        x, y = point
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


def placed(
    points: Sequence[Point], sizes: Sequence[tuple[float, float]], *, mark: float, room: Box, taken: Sequence[Box] = ()
) -> list[Box]:
    """A place for the label of each point; where nothing is free, the place that meets the fewest others.

    Args:
        sizes: width and height of each label.
        mark: the diameter of a point's mark.
        room: what the labels must stay in.
        taken: what they must leave free besides marks and each other.
    """
    marks = [Box.around(point, mark, mark) for point in points]
    full = list(taken)
    out: dict[int, Box] = {}
    for at in _crowded_first(points):
        point, others = points[at], marks[:at] + marks[at + 1 :]
        best, least, way = Box.around(point, *sizes[at]), math.inf, list[Box]()
        for ring in _rings(point, sizes[at], mark, room):
            for box in ring:
                met = sum(box.meets(other, GAP) for other in (*full, *marks))
                if met >= least:
                    continue
                line = [] if free(point, box, mark) else list(along(point, box.nearest(point)))
                met += sum(one.meets(other) for one in line for other in out.values())
                # A line may cross a mark where it must, as one that begins under another has to.
                found = met + PASSED * any(one.meets(other) for one in line for other in others)
                if found < least:
                    best, least, way = box, found, line
                if not found:
                    break
            if least < 1:
                break
        out[at] = best
        full += [best, *way]
    return [out[at] for at in range(len(points))]


def free(point: Point, box: Box, mark: float) -> bool:
    """Whether a label is so near that it needs no line to its point."""
    return math.dist(point, box.nearest(point)) - mark / 2 < FREE


def along(start: Point, end: Point) -> Iterator[Box]:
    """Small boxes that cover a line."""
    steps = max(1, math.ceil(math.dist(start, end) / 2))
    for k in range(steps + 1):
        share = k / steps
        yield Box.around((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])), 1.0, 1.0)


def _crowded_first(points: Sequence[Point]) -> list[int]:
    """Points with near neighbours before those that have room in any case."""

    def crowd(at: int) -> float:
        return sum(1 / (1 + math.dist(points[at], other) ** 2) for other in points)

    return sorted(range(len(points)), key=lambda at: (-crowd(at), at))


def _rings(point: Point, size: tuple[float, float], mark: float, room: Box) -> Iterator[list[Box]]:
    """Places inside the room, the nearest first, of one ring those to the right first."""
    (x, y), (width, height) = point, size
    turns = sorted((turn * 2 * math.pi / TURNS for turn in range(TURNS)), key=lambda turn: (-math.cos(turn), turn))
    for ring in range(math.ceil(max(room.right - room.left, room.top - room.bottom) / STEP)):
        # So far that the box begins at the ring, in whichever direction.
        right, up = (mark / 2 + GAP + STEP * ring + side / 2 for side in (width, height))
        boxes = [Box.around((x + math.cos(turn) * right, y + math.sin(turn) * up), width, height) for turn in turns]
        yield [box for box in boxes if room.holds(box)]


def label(
    axes: Axes, points: Sequence[Point], texts: Sequence[str], *, mark: float, line: Sequence[Point] = (), size: float
) -> list[Box]:
    """Label points of axes that are laid out already; the places that the labels take, in points of the figure.

    Args:
        points: in data coordinates, as is `line`, which no label may touch.
        mark: the diameter of a point's mark.
        size: of the type.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    scale = 72 / figure.dpi

    def at(point: Point) -> Point:
        x, y = axes.transData.transform(point)
        return float(x) * scale, float(y) * scale

    def covers(artist: object) -> Box:
        box = artist.get_window_extent()  # type: ignore[attr-defined]
        return Box(*(float(value) * scale for value in box.extents))

    taken = [covers(text) for text in axes.texts]
    corners = [at(point) for point in line]
    taken += [box for start, end in itertools.pairwise(corners) for box in along(start, end)]
    notes = [
        axes.annotate(
            text, point, xytext=(0, 0), textcoords="offset points", ha="center", va="center", fontsize=size
        )
        for text, point in zip(texts, points, strict=True)
    ]  # fmt: skip
    places = [at(point) for point in points]
    sizes = [(box.right - box.left, box.top - box.bottom) for box in map(covers, notes)]
    found = placed(places, sizes, mark=mark, room=covers(axes), taken=taken)
    for note, place, box in zip(notes, places, found, strict=True):
        note.xyann = (box.centre[0] - place[0], box.centre[1] - place[1])
        if not free(place, box, mark):
            x, y = box.nearest(place)
            style = {"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkA": 0, "shrinkB": mark / 2}
            axes.annotate("", note.xy, (x - place[0], y - place[1]), textcoords="offset points", arrowprops=style)
    return found
