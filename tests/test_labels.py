"""Labels of a figure's points: each near its point, and none on another, on a point or on a line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from bench import accuracy_figures, committed, labels, result
from bench.labels import Box

ROOM = Box(0.0, 0.0, 340.0, 220.0)
MARK = 5.0


def apart(boxes: Sequence[Box], marks: Sequence[Box], taken: Sequence[Box] = ()) -> bool:
    """Whether no label meets another, a mark or what is taken."""
    pairs = itertools.chain(itertools.combinations(boxes, 2), itertools.product(boxes, (*marks, *taken)))
    return not any(one.meets(other) for one, other in pairs)


@pytest.mark.parametrize("seed", range(2))
def test_crowded_points_get_places_of_their_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Thirty points, twenty of them on a patch that could not hold their labels.
    far = rng.uniform((20, 20), (320, 200), (10, 2)).tolist()
    points = [(float(x), float(y)) for x, y in [*rng.normal((160, 110), (18, 8), (20, 2)).tolist(), *far]]
    sizes = [(6.0 + 5.0 * (k > 8), 8.0) for k in range(len(points))]
    line = list(labels.along((0.0, 200.0), (340.0, 40.0)))
    found = labels.placed(points, sizes, mark=MARK, room=ROOM, taken=line)
    assert apart(found, [Box.around(point, MARK, MARK) for point in points], line)
    assert all(ROOM.holds(box) for box in found)
    np.testing.assert_allclose([(box.right - box.left, box.top - box.bottom) for box in found], sizes)
    # Lines to what had to go further pass by the other labels.
    for at, (point, box) in enumerate(zip(points, found, strict=True)):
        if not labels.free(point, box, MARK):
            way = list(labels.along(point, box.nearest(point)))
            assert not any(one.meets(other) for one in way for other in found[:at] + found[at + 1 :])


def test_a_point_alone_has_its_label_to_the_right_and_at_an_edge_inside() -> None:
    (box,) = labels.placed([(100.0, 100.0)], [(10.0, 8.0)], mark=MARK, room=ROOM)
    assert box.left == pytest.approx(100.0 + MARK / 2 + labels.GAP) and box.centre[1] == pytest.approx(100.0)
    (box,) = labels.placed([(338.0, 100.0)], [(10.0, 8.0)], mark=MARK, room=ROOM)
    assert ROOM.holds(box) and box.right < 338.0 + 10 and labels.free((338.0, 100.0), box, MARK)


def test_where_nothing_is_free_every_label_still_has_a_place() -> None:
    small = Box(0.0, 0.0, 22.0, 12.0)
    found = labels.placed([(10.0, 6.0)] * 4, [(9.0, 8.0)] * 4, mark=MARK, room=small)
    assert len(found) == 4 and all(math.isfinite(box.left) for box in found)
    assert labels.placed([], [], mark=MARK, room=small) == []


def test_boxes() -> None:
    one = Box(0.0, 0.0, 2.0, 2.0)
    assert one.meets(Box(1.0, 1.0, 3.0, 3.0)) and not one.meets(Box(2.0, 0.0, 3.0, 2.0))
    assert one.meets(Box(2.5, 0.0, 3.0, 2.0), gap=1.0) and not one.meets(Box(0.0, 3.5, 2.0, 4.0), gap=1.0)
    assert one.holds(Box(0.0, 1.0, 2.0, 2.0)) and not one.holds(Box(0.0, 1.0, 2.1, 2.0))
    assert one.nearest((5.0, 1.0)) == (2.0, 1.0) and one.nearest((1.0, -3.0)) == (1.0, 0.0)
    # Without a hole, and to both ends.
    ends = list(labels.along((0.0, 0.0), (9.0, 0.0)))
    assert (ends[0].centre, ends[-1].centre) == ((0.0, 0.0), (9.0, 0.0))
    assert all(b.left - a.right <= 1.0 for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("path", committed.everywhere("accuracy-*.json"), ids=lambda path: path.stem)
def test_no_number_of_a_committed_accuracy_figure_hides_another(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = result.load(path, "mf-accuracy", 1)
    seen: list[tuple[list[Box], list[Box]]] = []
    placed = labels.placed

    def spy(points: Any, sizes: Any, *, mark: float, room: Box, taken: Any) -> list[Box]:
        found = placed(points, sizes, mark=mark, room=room, taken=taken)
        seen.append((found, [Box.around(point, mark, mark) for point in points] + list(taken)))
        assert all(room.holds(box) for box in found)
        return found

    monkeypatch.setattr(labels, "placed", spy)
    drawn = accuracy_figures.pictures(outcome)[0]
    ((boxes, others),) = seen
    assert apart(boxes, others) and len(boxes) > 1
    # Who has no number is told.
    assert len(boxes) == sum(f"{row['system']} {row['rmse']:.4f}" not in drawn.about for row in outcome["systems"])
    # Numbers are ranks, and every one is in the key.
    for k, row in enumerate(sorted(outcome["systems"], key=lambda row: float(row["rmse"]))[: len(boxes)], 1):
        assert f">{k}  {row['system']}<" in drawn.svg and f">{k}<" in drawn.svg
