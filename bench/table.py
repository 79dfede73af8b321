"""The table of a result: the same cells for the terminal, for plain text and for the report."""

from __future__ import annotations

from typing import Any

from bench.result import busy, label
from bench.section import Column

Json = dict[str, Any]

COLUMNS = (
    Column("backend", False),
    Column("device", False),
    Column("dtype", False),
    Column("status", False),
    Column("ratings"),
    Column("ms/iteration"),
    Column("middle half (min–max)"),
    Column("ratings/s"),
    Column("warm-up s"),
    Column("train RMSE"),
    Column("valid RMSE"),
    Column("Δ params"),
    Column("Δ loss"),
    Column("allowed"),
)


def cells(row: Json) -> list[str]:
    """The texts of one row, one a column; a number that is not there is a dash."""
    timing, final, difference, warm = (row[name] or {} for name in ("timing", "final", "difference", "warm_up"))
    spread = "–"
    if timing:
        spread = f"{_ms(timing['q1_ms'])}–{_ms(timing['q3_ms'])} ({_ms(timing['min_ms'])}–{_ms(timing['max_ms'])})"
    return [
        row["backend"],
        row["device"],
        row["dtype"],
        row["status"],
        f"{row['n_ratings']:,}",
        _ms(timing.get("median_ms")),
        spread,
        _rate(timing.get("ratings_per_s")),
        "–" if not warm else f"{sum(warm.values()):.1f}",
        _rmse(final.get("train_rmse")),
        # The slice is scored on its own training ratings, which is no validation.
        _rmse(None if row["problem"] == "slice" else final.get("valid_rmse")),
        _small(difference.get("params")),
        _small(difference.get("loss")),
        _small(difference.get("bound")),
    ]


def values(row: Json) -> list[float | None]:
    """What each cell of a row is sorted by; None where it is words, or not there."""
    timing, final, difference, warm = (row[name] or {} for name in ("timing", "final", "difference", "warm_up"))
    sliced = row["problem"] == "slice"
    return [
        *(None for column in COLUMNS if not column.numeric),
        row["n_ratings"],
        timing.get("median_ms"),
        timing.get("q1_ms"),
        timing.get("ratings_per_s"),
        sum(warm.values()) if warm else None,
        final.get("train_rmse"),
        None if sliced else final.get("valid_rmse"),
        *(difference.get(name) for name in ("params", "loss", "bound")),
    ]


def reasons(result: Json) -> list[str]:
    """Why rows failed or did not run, a line each."""
    return [f"{label(row)}: {row['status']}, {row['reason']}" for row in result["rows"] if row["status"] != "ok"]


def yardsticks(result: Json) -> str:
    """What the validation RMSE is to be compared with, in one line."""
    parts = [f"{name} {scores['rmse']:.4f}" for name, scores in result["baselines"].items() if scores["rmse"]]
    floor = result["data"]["noise_floor"]
    text = "Validation RMSE to compare with: " + ", ".join(parts)
    text += f", noise floor {floor:.4f}" if floor is not None else " (real data: nobody knows the noise floor)"
    allowed = result["rules"]["rmse_range"]
    if allowed:
        return f"{text}; a converged run must lie between {allowed[0]:.4f} and {allowed[1]:.4f}."
    return f"{text}; not judged: {result['rules']['rmse_not_judged_because']}."


def title(result: Json) -> str:
    """What was run on what."""
    data, config = result["data"], result["problems"]["full"]["config"] if "full" in result["problems"] else None
    of = f"{data['name']}: {data['n_train']:,} ratings, {data['n_users']:,} users, {data['n_items']:,} items"
    return of + (f"; K = {config['n_factors']}, {config['n_epochs']} full-batch iterations" if config else "")


def plain(result: Json) -> str:
    """The table as text, for a machine without rich."""
    lines = [[column.title for column in COLUMNS]] + [cells(row) for row in result["rows"]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    out = [title(result)]
    for line in lines:
        texts = [
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(line, widths, COLUMNS, strict=True)
        ]
        out.append("  ".join(texts).rstrip())
    return "\n".join([*out, *_notes(result)])


def rich(result: Json) -> Any:
    """The table for a terminal, as a rich renderable."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title(result), title_justify="left", title_style="bold", pad_edge=False, box=None, header_style="bold"
    )
    for column in COLUMNS:
        right = column.numeric
        table.add_column(column.title, justify="right" if right else "left", overflow="fold", no_wrap=False)
    styles = {"ok": "", "FAILED": "bold red", "not run": "dim"}
    last = None
    for row in result["rows"]:
        if last not in (None, row["problem"]):
            table.add_section()
        last = row["problem"]
        table.add_row(*cells(row), style=styles[row["status"]])
    return Group(table, *(Text(line) for line in _notes(result)))


def _notes(result: Json) -> list[str]:
    return [line for line in (*reasons(result), yardsticks(result), busy(result)) if line]


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _rate(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k"


def _rmse(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
