"""The section of `bench.cuda`: every path on a GPU and on the same machine's CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes

from bench.cuda import best
from bench.figures import Picture, front, pareto, picture
from bench.pages import plots, words
from bench.section import (
    NOTHING,
    Cell,
    Column,
    Fold,
    Row,
    Section,
    Table,
    gib,
    machine_lines,
    mib,
    number,
    significant,
    text,
)

Json = dict[str, Any]

COLUMNS = (
    *(Column(name, numeric=False) for name in ("part", "on", "path")),
    *map(Column, ("ratings", "batch", "K", "ms", "middle half", "M ratings/s", "of its bound", "GPU busy", "peak MiB")),
    Column("s to the RMSE"),
)
LINES = (Column("line", numeric=False), Column("MiB"), Column("GB/s"))
CROSSINGS = (
    *map(Column, ("K", "ratings")),
    Column("on CUDA", numeric=False),
    Column("ms"),
    Column("on the CPU", numeric=False),
    *map(Column, ("ms", "CPU over CUDA", "GPU busy")),
)
METHOD = (
    "Full batch: an iteration, gradient and update, from launch to an idle device, float32, after its first steps were "
    "found to be those of the Numba backend. Batch: a step over a mini-batch, without what an epoch costs once. "
    "Target: seconds of training until the validation RMSE is near the noise floor of the planted ratings. The CPU is "
    "that of the same machine, on all its cores.",
    "A share of the bound is the least time that the bytes of an iteration take at the device's own measured rates "
    "(Eq. 28), over the median. GPU busy is the share of an iteration in which a kernel runs.",
)


def part(result: Json) -> Section:
    """The result's section of a page."""
    device = result["cuda"]
    about = "no CUDA device was there." if device is None else f"{device['name']}, {gib(device['memory_bytes'])}."
    return Section(
        kind="CUDA and the CPU beside it",
        data=device["name"] if device else "",
        verdict=_verdict(result),
        about=f"{len(result['rows'])} cases in {result['seconds']:g} s; {about}",
        table=Table(COLUMNS, tuple(_rows(result["rows"]))),
        machine=machine_lines(result),
        method=METHOD,
        draw=lambda: list(_pictures(result["rows"])),
        warnings=words.notices(result),
        folds=tuple(_folds(result)),
        hint="full cuda fused, batch",
    )


def _verdict(result: Json) -> str:
    if result["cuda"] is None:
        return "no CUDA device was there: nothing is said of CUDA."
    if not result["crossings"]:
        return "no size was timed on both devices."
    said = []
    for k in words.ordered(one["n_factors"] for one in result["crossings"]):
        here = [one for one in result["crossings"] if one["n_factors"] == k]
        ahead = [one for one in here if one["from_here"]]
        most = max(here, key=lambda one: int(one["n_ratings"]))
        where = f"from {ahead[0]['n_ratings']:,} ratings on" if ahead else "at no size"
        said.append(f"with K = {k} {where} ({most['ratio']:.3g} times as fast at {most['n_ratings']:,})")
    return f"CUDA is ahead of the CPU {'; '.join(said)}."


def _path(row: Json) -> str:
    graph = ", graph" if row["graph"] else ""
    return f"{row['system']}{graph}{', ' + row['storage'] if row.get('storage') else ''}"


def _rows(rows: list[Json]) -> Iterator[Row]:
    before = None
    for row in rows:
        if row["part"] == "roof" and row["status"] == "ok":
            continue
        names = text(row["part"]), text(row["device"]), text(_path(row))
        begin = *names, *(number(row[key], ",") for key in ("n_ratings", "batch_size", "n_factors"))
        apart = before not in (None, row["part"])
        before = row["part"]
        timing = row.get("timing")
        if row["status"] != "ok" or not (timing or row["part"] == "target"):
            yield Row(begin, words.reason(row) or "no time", off=True, apart=apart)
            continue
        profile = row.get("profile")
        busy = profile["busy_ms"] / timing["median_ms"] if profile and timing else None
        cells = words.timed(timing) if timing else (NOTHING,) * 3
        ends = _share(row.get("share")), _share(busy), mib(row.get("peak_cuda_bytes")), _reached(row)
        yield Row((*begin, *cells, *ends), apart=apart)


def _reached(row: Json) -> Cell:
    if row["part"] != "target":
        return NOTHING
    if row["seconds"] is None:
        return Cell("not reached")
    return Cell(f"{row['seconds']:.3g} ({row['target_rmse']:.4f})", row["seconds"])


def _share(share: float | None) -> Cell:
    return NOTHING if share is None else Cell(f"{share:.0%}", share)


def _folds(result: Json) -> Iterator[Fold]:
    if result["crossings"]:
        rows = [
            Row(
                (
                    number(one["n_factors"]),
                    Cell(f"{one['n_ratings']:,}", one["n_ratings"]),
                    text(one["cuda"]),
                    significant(one["cuda_ms"]),
                    text(one["cpu"]),
                    significant(one["cpu_ms"]),
                    Cell(f"{one['ratio']:.3g}×", one["ratio"]),
                    _share(one["busy"]),
                )
            )
            for one in result["crossings"]
        ]
        yield Fold("Where CUDA overtakes", "The fastest path of each device.", Table(CROSSINGS, tuple(rows)))
    if result["roof"]:
        lines = [
            Row((text(line["kernel"]), number(line["bytes"] / 2**20, ",.0f"), significant(line["gbytes_per_s"])))
            for line in result["roof"]["lines"]
        ]
        yield Fold("The GPU's lines", f"By {result['roof']['by']}.", Table(LINES, tuple(lines)))


def _pictures(rows: list[Json]) -> Iterator[Picture]:
    full = [row for row in rows if row["part"] == "full" and row.get("timing")]
    if full:
        k = Counter(row["n_factors"] for row in full).most_common(1)[0][0]
        n = Counter(row["n_ratings"] for row in full).most_common(1)[0][0]
        sizes, factors = (words.ordered(row[key] for row in full) for key in ("n_ratings", "n_factors"))
        for x, points, held in (
            ("N", [(size, size, k) for size in sizes], f"K = {k}"),
            ("K", [(other, n, other) for other in factors], f"N = {n:,}"),
        ):
            curves = [plots.Curve(device.upper(), _fastest(rows, device, points)) for device in ("cuda", "cpu")]
            yield plots.growth(
                f"Ratings a second against {x}, CUDA and CPU", [curve for curve in curves if curve.points], x=x,
                y="M ratings/s", key=f"cuda-{x}", unit=" M",
                about=f"The fastest path of each device, full batch, {held}.",
            )  # fmt: skip
        each = [row for row in full if row["n_factors"] == k]
        yield plots.growth(
            f"Ratings a second of each path, K = {k}", _rates(each, "n_ratings"), x="N", y="M ratings/s",
            key="cuda-paths", unit=" M", about="Ratings a second at the median iteration, full batch.",
        )  # fmt: skip
    batches = [row for row in rows if row["part"] == "batch" and row.get("timing")]
    if batches:
        yield plots.growth(
            "Ratings a second against the batch", _rates(batches, "batch_size"), x="ratings of a batch",
            y="M ratings/s", key="cuda-batches", unit=" M",
            about="Ratings a second at the median step over a mini-batch.",
        )  # fmt: skip
    targets = [row for row in rows if row["part"] == "target" and row.get("curve")]
    if targets:
        yield _ways(targets)


def _fastest(rows: list[Json], device: str, points: list[tuple[int, int, int]]) -> list[tuple[float, float]]:
    found = [(x, best(rows, device, n, k)) for x, n, k in points]
    return [(float(x), row["timing"]["ratings_per_s"] / 1e6) for x, row in found if row]


def _rates(rows: list[Json], x: str) -> list[plots.Curve]:
    return plots.rates([row | {"case": f"{_path(row)} on {row['device'].upper()}"} for row in rows], "case", x)


def _ways(rows: list[Json]) -> Picture:
    curves = {}
    for row in rows:
        size = f", batches of {row['batch_size']:,}" if row["batch_size"] else ""
        spent, points = 0.0, []
        for _, seconds, rmse in row["curve"]:
            spent += seconds
            points += [] if rmse is None else [(spent, rmse)]
        if points:
            curves[f"{_path(row)} on {row['device'].upper()}{size}"] = points
    best_of = pareto([point for points in curves.values() for point in points])
    styles = plots.styles(curves)

    def draw(axes: Axes) -> None:
        front(axes, best_of)
        for name, points in curves.items():
            axes.plot(
                *zip(*points, strict=True), color=styles[name].colour, marker=styles[name].mark, markersize=3,
                linewidth=1.4, label=name,
            )  # fmt: skip
        axes.set_xscale("log")
        plots.log_ticks(axes.xaxis)
        axes.set_xlabel("seconds of training, log scale")
        axes.set_ylabel("validation RMSE")

    ends = "; ".join(f"{name} {points[-1][1]:.4f} after {points[-1][0]:.3g} s" for name, points in curves.items())
    about = f"Validation RMSE against seconds of training; the wide band is what none beats (the Pareto front). {ends}."
    return picture("RMSE against seconds", about, draw, "cuda-ways")
