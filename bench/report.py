"""The report of the comparison of backends: a page that needs nothing else, the same bytes for the same result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench import section, table
from bench.result import busy, clean, to_text
from bench.section import NOTHING, Cell, Column, Fold, Row, Section, Table, mib, number, text

if TYPE_CHECKING:
    from bench.figures import Picture

Json = dict[str, Any]

TONES = {"ok": "good", "FAILED": "bad", "not run": ""}
BEFORE = 5
"""Columns that a case has without being timed."""

CHECKS = (
    Column("case", numeric=False),
    Column("first gradient"),
    Column("trajectory"),
    Column("allowed"),
    Column("verdict", numeric=False),
)
COSTS = (
    Column("case", numeric=False),
    *map(Column, ("flops a rating", "GFLOP/s", "bytes a rating", "GB/s")),
    *map(Column, ("imports s", "data s", "first fit s", "peak MiB", "peak CUDA MiB")),
)


def render(result: Json) -> str:
    """The page of a result. Needs jinja2 and matplotlib.

    Raises:
        ImportError: one of them is not installed.
    """
    result = json.loads(to_text(clean(result)))
    return section.html([part(result)], result)


def part(result: Json) -> Section:
    """The result's section of a page."""

    def draw() -> Sequence[Picture]:
        from bench import figures

        return figures.pictures(result)

    disturbed = busy(result)
    return Section(
        kind="Matrix factorisation, by hand and by autograd",
        data=result["data"]["name"],
        verdict=result["verdict"],
        about=table.title(result) + ".",
        table=Table(table.COLUMNS, tuple(_rows(result["rows"]))),
        machine=tuple(_machine(result)),
        method=tuple(_method(result)),
        draw=draw,
        passed=result["ok"],
        warnings=(disturbed,) if disturbed else (),
        notes=(
            f"{table.yardsticks(result)} Δ is the largest relative difference from the float64 NumPy run of the same "
            "problem; the first rows train on a slice that plain Python can bear.",
        ),
        folds=tuple(_folds(result)),
        hint="numba float64, torch",
    )


def _rows(rows: list[Json]) -> Iterator[Row]:
    before = None
    for row in rows:
        values, tone = table.values(row), TONES[row["status"]]
        cells = tuple(
            Cell(shown, value, tone if column.title == "status" else "")
            for column, shown, value in zip(table.COLUMNS, table.cells(row), values, strict=True)
        )
        timed = bool(row["timing"])
        yield Row(
            cells if timed else cells[:BEFORE],
            row["reason"] or "",
            off=row["status"] == "not run",
            apart=before not in (None, row["problem"]),
        )
        before = row["problem"]


def _machine(result: Json) -> Iterator[tuple[str, str]]:
    yield from section.machine_lines(result)
    yield "BLAS", _blas(result)
    yield "data", f"{result['data']['name']}, fingerprint {result['data']['fingerprint'][:12]}"


def _blas(result: Json) -> str:
    seen = []
    for row in result["rows"]:
        for pool in row["pools"] or []:
            said = f"{pool.get('internal_api')} {pool.get('version') or ''}".strip()
            if pool.get("architecture"):
                said += f" ({pool['architecture']})"
            if pool.get("user_api") == "blas" and said not in seen:
                seen.append(said)
    return ", ".join(seen) or "unknown (threadpoolctl is not installed)"


def _method(result: Json) -> Iterator[str]:
    rules = result["rules"]
    yield (
        "Every case runs in a fresh process with the thread counts above. Its warm-up (imports, data, and a first fit "
        "that compiles kernels, opens the device and copies the ratings there) is measured apart. Then the case is "
        "checked: its first gradient and a short trajectory, at every step, against float64 NumPy. Only a case that "
        "passes is timed. A sample is the wall time of one full-batch iteration, after the device has finished; "
        "scoring is not part of it. All samples are in the JSON; the table shows median, middle half, minimum and "
        "maximum."
    )
    drifts = [
        f" Measured drift on the {'slice' if name == 'slice' else 'full problem'}: {problem['float64_drift']:.1e}."
        for name, problem in result["problems"].items()
        if problem["float64_drift"] is not None
    ]
    yield (
        f"float64 runs must stay within {rules['float64_bound']:.0e} of the reference. The float32 bound is measured: "
        "two independent float64 backends differ by a drift (at least eps64 is taken), which says how much this "
        "training amplifies one rounding; float32 roundings are eps32/eps64 = 2²⁹ times larger, so the bound is "
        f"drift · 2²⁹ · {rules['safety']:g}. The last factor covers what float64 backends share and float32 does not, "
        "such as the rounding of the start and of the ratings." + "".join(drifts)
    )
    if rules["rmse_range"]:
        low, high = rules["rmse_range"]
        yield (
            f"The validation RMSE must lie between {low:.4f} and {high:.4f}: what least squares with as many "
            "parameters expects above the noise floor, give or take four standard errors."
        )


def _folds(result: Json) -> Iterator[Fold]:
    skip = ("dtype", "patience", "tol", "min_delta", "lr_decay", "lr_schedule")
    config = result["problems"]["full"]["config"] if "full" in result["problems"] else {}
    words = tuple((name, _said(value)) for name, value in config.items() if name not in skip)
    yield Fold("Settings of the full problem", words=words)
    checked = tuple(_checked(row) for row in result["rows"] if row["check"])
    if checked:
        yield Fold("Checks before each timing", table=Table(CHECKS, checked))
    costs = tuple(_cost(row) for row in result["rows"] if row["cost"])
    if costs:
        yield Fold(
            "Work, warm-up and memory of each case",
            "Operations and bytes come from a model of the code (bench/cost.py), as if no factor row stayed in a "
            "cache, so a rate can pass the memory's own.",
            Table(COSTS, costs),
        )


def _checked(row: Json) -> Row:
    check = row["check"]
    found = [
        Cell("not finite") if check[key] is None else number(check[key], ".1e") for key in ("gradient", "trajectory")
    ]
    verdict = Cell("equal") if check["passed"] else Cell("FAILED", tone="bad")
    return Row((_case(row), *found, number(check["bound"], ".1e"), verdict))


def _cost(row: Json) -> Row:
    cost, warm = row["cost"], row["warm_up"]
    forms = {"flops_per_rating": ".0f", "gflops_per_s": ".3g", "bytes_per_rating": ".0f", "gbytes_per_s": ".3g"}
    spent = [number(warm[name], ".2f") for name in ("imports_s", "data_s", "first_fit_s")]
    held = [mib(row[name]) for name in ("peak_memory_bytes", "peak_cuda_bytes")]
    return Row((_case(row), *(number(cost[name], form) for name, form in forms.items()), *spent, *held))


def _case(row: Json) -> Cell:
    return text(f"{row['backend']} {row['device']} {row['dtype']}, {row['problem']}")


def _said(value: Any) -> str:
    if value is None:
        return NOTHING.text
    return f"{value:g}" if isinstance(value, float) else str(value)
