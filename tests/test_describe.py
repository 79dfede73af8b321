"""Descriptions agree with the table, and plots are whole files that can be read."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mf_numpy import ConfigError, DataError, Ratings
from mf_numpy.describe import describe, plot_counts, plot_distribution
from mf_numpy.readers import from_arrays, read_ratings

Plotter = Callable[[Ratings, Path], Path]


@pytest.fixture
def table() -> Ratings:
    return from_arrays([1, 1, 1, 2, 3], [1, 2, 3, 1, 1], [5, 3, 3, 1, 4], scale=(1, 5))


def continuous() -> Ratings:
    values = np.random.default_rng(0).uniform(1, 10, 200)
    return Ratings.of_indices(np.arange(200) % 20, np.arange(200) // 20, values)


def test_the_numbers_are_those_of_the_table(table: Ratings) -> None:
    found = describe(table)
    assert (found.rows, found.not_rated, found.ratings, found.users, found.items) == (5, 0, 5, 3, 3)
    assert found.density == pytest.approx(5 / 9)
    assert found.mean == pytest.approx(16 / 5)
    assert found.sd == pytest.approx(np.std([5, 3, 3, 1, 4]))
    assert found.scale == (1, 5)
    assert dict(zip(found.distribution.levels, found.distribution.counts, strict=True)) == {1: 1, 3: 2, 4: 1, 5: 1}
    assert found.distribution.width is None
    user = found.per_user
    assert (user.mean, user.q75, user.q90) == pytest.approx((5 / 3, 2.0, 2.6))
    assert (user.min, user.q50, user.max) == (1, 1.0, 3)


def test_many_distinct_ratings_are_binned_without_loss() -> None:
    ratings = continuous()
    shape = describe(ratings).distribution
    assert shape.width is not None
    assert sum(shape.counts) == len(ratings)
    ends = np.array(shape.levels)[:, None] + shape.width / 2 * np.array([-1, 1])
    inside = [((ratings.values >= low) & (ratings.values <= high)).sum() for low, high in ends]
    assert abs(np.array(inside) - shape.counts).max() <= 1  # a rating on an edge is inside two
    assert ends[0, 0] == pytest.approx(ratings.values.min())
    assert len(shape.labels()) == len(shape.counts) == 20


def test_ratings_past_a_declared_scale_are_not_lost_from_the_bins() -> None:
    ratings = continuous()
    narrow = Ratings(ratings.users, ratings.items, ratings.values, ratings.user_ids, ratings.item_ids, scale=(4.0, 5.0))
    assert sum(describe(narrow).distribution.counts) == len(ratings)


def test_the_table_of_text_says_it_all(table: Ratings) -> None:
    frame = describe(table).to_frame()
    said = dict(zip(frame["quantity"], frame["value"], strict=True))
    assert said["ratings"] == "5"
    assert said["density"] == "55.56 %"
    assert said["scale"] == "1 to 5"
    assert said["rating 3"] == "2 (40.0 %)"
    assert said["ratings per user, least and most"] == "1 and 3"


def test_nothing_to_describe_is_an_error() -> None:
    empty = Ratings.of_indices(np.array([], int), np.array([], int), [], m=1, n=1)
    for function in (describe, lambda r: plot_counts(r, "x.png"), lambda r: plot_distribution(r, "x.png")):
        with pytest.raises(DataError, match="there are no ratings"):
            function(empty)


@pytest.mark.parametrize("binned", [True, False])
@pytest.mark.parametrize("draw", [plot_distribution, plot_counts])
def test_plots_are_whole_pictures_with_labelled_axes(
    tmp_path: Path, table: Ratings, draw: Plotter, binned: bool
) -> None:
    ratings = continuous() if binned else table
    assert draw(ratings, tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG\r\n")
    path = draw(ratings, tmp_path / "a.svg")
    text = path.read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    # Text is drawn as outlines, and matplotlib keeps the words in comments.
    assert "<!-- ratings (number) -->" in text
    assert "<!-- rating" in text if draw is plot_distribution else "<!-- rank of the user" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PNG", "a.svg"], "no temporary file may stay"


@pytest.mark.parametrize("draw", [plot_distribution, plot_counts])
def test_equal_ratings_give_an_equal_svg(tmp_path: Path, draw: Plotter) -> None:
    one, other = draw(continuous(), tmp_path / "a.svg"), draw(continuous(), tmp_path / "b.svg")
    assert one.read_bytes() == other.read_bytes()
    assert "date" not in one.read_text().lower()


def test_a_failed_plot_leaves_the_old_file_and_no_other(
    tmp_path: Path, table: Ratings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.svg"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_counts(table, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_suffix_or_folder_that_cannot_be_is_refused(tmp_path: Path, table: Ratings) -> None:
    with pytest.raises(ConfigError, match=r"the suffix of a plot is '.pdf', but must be one of '.png', '.svg'"):
        plot_counts(table, tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match="there is no folder"):
        plot_counts(table, tmp_path / "none" / "a.png")


def test_the_anime_sample(data_dir: Path) -> None:
    found = describe(read_ratings(data_dir / "anime"))
    assert (found.rows, found.not_rated, found.ratings) == (520_609, 100_666, 419_943)
    assert found.per_user.mean == pytest.approx(89.0842, abs=5e-5)
    assert sum(found.distribution.counts) == 419_943
    assert found.distribution.levels == tuple(range(1, 11))
