"""What a table of ratings looks like: its sizes and spreads as numbers, and two plots."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mf_numpy.errors import ConfigError, DataError, choose
from mf_numpy.ratings import Array, Ratings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LEVELS = 20
_N_BINS = 20
_BLUE, _ORANGE = "#1f5a94", "#c4570a"  # told apart in grey and by colour-blind readers


@dataclass(frozen=True)
class Distribution:
    """How often each rating is given; ratings are binned where more than 20 distinct ones occur.

    Attributes:
        levels: (k,) the distinct ratings, or the centres of the bins, in rating units.
        counts: (k,) ratings at each.
        width: of a bin in rating units, or None for distinct ratings. A bin holds its lower end, the last one both.
    """

    levels: tuple[float, ...]
    counts: tuple[int, ...]
    width: float | None

    def labels(self) -> list[str]:
        """The rating, or the range of the bin, as text."""
        if self.width is None:
            return [f"{level:g}" for level in self.levels]
        half = self.width / 2
        return [f"{level - half:.4g} to {level + half:.4g}" for level in self.levels]


@dataclass(frozen=True)
class Spread:
    """Ratings per user, or per item: mean, extremes and quantiles (linear interpolation)."""

    mean: float
    min: int
    q10: float
    q25: float
    q50: float
    q75: float
    q90: float
    max: int

    @classmethod
    def of(cls, counts: Array) -> Spread:
        """The spread of counts (k,), k ≥ 1."""
        q10, q25, q50, q75, q90 = np.percentile(counts, (10, 25, 50, 75, 90)).tolist()
        return cls(float(counts.mean()), int(counts.min()), q10, q25, q50, q75, q90, int(counts.max()))


@dataclass(frozen=True)
class Description:
    """A table of ratings in numbers.

    Attributes:
        rows: of the table that was read.
        not_rated: rows dropped because they hold no rating.
        users, items, ratings: m, n and N.
        density: N / (m n).
        mean, sd: of the ratings, in rating units.
        scale: smallest and largest allowed rating, or None where none was declared.
        distribution: how often each rating is given.
        per_user, per_item: ratings of each user and of each item.
    """

    rows: int
    not_rated: int
    users: int
    items: int
    ratings: int
    density: float
    mean: float
    sd: float
    scale: tuple[float, float] | None
    distribution: Distribution
    per_user: Spread
    per_item: Spread

    def lines(self) -> list[tuple[str, str]]:
        """The description as (quantity, value) pairs of text, for a table on a terminal or a page."""
        out = [
            ("rows read", f"{self.rows:,}"),
            ("rows not rated", f"{self.not_rated:,}"),
            ("ratings", f"{self.ratings:,}"),
            ("users", f"{self.users:,}"),
            ("items", f"{self.items:,}"),
            ("density", f"{100 * self.density:.4g} %"),
            ("scale", "not declared" if self.scale is None else f"{self.scale[0]:g} to {self.scale[1]:g}"),
            ("mean rating", f"{self.mean:.4f}"),
            ("standard deviation", f"{self.sd:.4f}"),
        ]
        for side, spread in (("user", self.per_user), ("item", self.per_item)):
            out.append((f"ratings per {side}, mean", f"{spread.mean:.4f}"))
            out.append((f"ratings per {side}, least and most", f"{spread.min:,} and {spread.max:,}"))
            quantiles = (spread.q10, spread.q25, spread.q50, spread.q75, spread.q90)
            out.append((f"ratings per {side}, 10/25/50/75/90 %", " / ".join(f"{q:g}" for q in quantiles)))
        for label, count in zip(self.distribution.labels(), self.distribution.counts, strict=True):
            out.append((f"rating {label}", f"{count:,} ({100 * count / self.ratings:.1f} %)"))
        return out

    def to_frame(self) -> pd.DataFrame:
        """The same as a table with the columns ``quantity`` and ``value``."""
        return pd.DataFrame(self.lines(), columns=["quantity", "value"])


def describe(ratings: Ratings) -> Description:
    """Describe N ratings of m users and n items.

    Raises:
        DataError: no ratings.
    """
    if not len(ratings):
        raise DataError("there are no ratings to describe; give at least one")
    return Description(
        rows=int(ratings.notes.get("rows", len(ratings))),
        not_rated=int(ratings.notes.get("not_rated", 0)),
        users=ratings.n_users,
        items=ratings.n_items,
        ratings=len(ratings),
        density=ratings.density,
        mean=ratings.mean,
        sd=float(ratings.values.std()),
        scale=ratings.scale,
        distribution=_distribution(ratings),
        per_user=Spread.of(ratings.user_counts),
        per_item=Spread.of(ratings.item_counts),
    )


def _distribution(ratings: Ratings) -> Distribution:
    levels, counts = np.unique(ratings.values, return_counts=True)
    if len(levels) <= _MOST_LEVELS:
        return Distribution(tuple(levels.tolist()), tuple(counts.tolist()), None)
    low, high = ratings.scale if ratings.scale is not None else (levels[0], levels[-1])
    # A declared scale sets round edges, but must not hide a rating outside it.
    ends = (min(low, float(levels[0])), max(high, float(levels[-1])))
    counts, edges = np.histogram(ratings.values, bins=_N_BINS, range=ends)
    centres = (edges[:-1] + edges[1:]) / 2
    return Distribution(tuple(centres.tolist()), tuple(counts.tolist()), float(edges[1] - edges[0]))


def plot_distribution(ratings: Ratings, path: str | Path) -> Path:
    """Draw how often each rating is given, as a PNG or SVG file by the suffix of `path`.

    The file appears whole or not at all, and equal ratings give an equal SVG file.

    Raises:
        ConfigError: another suffix.
        DataError: no ratings, or no matplotlib.
    """
    shape = describe(ratings).distribution
    figure = _figure(path)
    axes = figure.add_subplot()
    width = shape.width or (0.8 * min(np.diff(shape.levels)) if len(shape.levels) > 1 else 0.8)
    edge = "white" if shape.width else "none"
    unit, unit_name = (1, "number") if max(shape.counts) < 10_000 else (1_000, "thousands")
    axes.bar(shape.levels, np.divide(shape.counts, unit), width=width, color=_BLUE, edgecolor=edge, linewidth=0.6)
    axes.axvline(ratings.mean, color=_ORANGE, linewidth=1.5)
    axes.annotate(
        f"mean {ratings.mean:.2f}",
        (ratings.mean, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        color=_ORANGE,
    )
    if shape.width is None:
        axes.set_xticks(shape.levels)
    axes.set_xlabel("rating" if shape.width is None else f"rating (bins of {shape.width:.3g})")
    axes.set_ylabel(f"ratings ({unit_name})")
    return _save(figure, path)


def plot_counts(ratings: Ratings, path: str | Path) -> Path:
    """Draw ratings per user and per item against their rank, log-log, as a PNG or SVG file by the suffix of `path`.

    Users and items without ratings have no place on a log scale, and are left out. Files and errors are those of
    `plot_distribution`.
    """
    if not len(ratings):
        raise DataError("there are no ratings to draw; give at least one")
    figure = _figure(path)
    axes = figure.add_subplot()
    sides = (("users", ratings.user_counts, _BLUE, "-"), ("items", ratings.item_counts, _ORANGE, "--"))
    for side, counts, colour, dash in sides:
        ranked = np.sort(counts[counts > 0])[::-1]
        shown = np.unique(np.geomspace(1, len(ranked), 400).round().astype(np.int64))  # a point per user is 70,000
        axes.plot(shown, ranked[shown - 1], dash, color=colour, linewidth=2, label=f"{len(ranked):,} {side}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=True, which="major", color="0.9")
    axes.legend(frameon=False)
    axes.set_xlabel("rank of the user or item (1 has the most ratings)")
    axes.set_ylabel("ratings (number)")
    return _save(figure, path)


def _figure(path: str | Path) -> Figure:
    choose("the suffix of a plot", Path(path).suffix.lower(), (".png", ".svg"))
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("plots need matplotlib; install it with: pip install 'mf[plot]'") from error
    return Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")


def _save(figure: Figure, path: str | Path) -> Path:
    """Write under a temporary name in the same folder, then rename."""
    import matplotlib as mpl

    target = Path(path)
    if not target.parent.is_dir():
        raise ConfigError(f"there is no folder {str(target.parent)!r} to put {target.name} in; make it first")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    kind = target.suffix.lower().removeprefix(".")
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file, mpl.rc_context({"svg.hashsalt": "mf", "svg.fonttype": "path"}):
            figure.savefig(file, format=kind, metadata=metadata)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target
