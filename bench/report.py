"""A result as a table for the terminal and as one self-contained HTML page; equal results give equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.equality import SAFETY
from bench.result import to_text, write_atomically

Json = dict[str, Any]

COLUMNS = [
    "backend", "device", "dtype", "ms / iteration", "quartiles", "M ratings/s", "warm-up s", "peak MiB",
    "train RMSE", "valid RMSE", "largest difference", "status",
]  # fmt: skip
LEGEND = (
    "ms / iteration is the median over all iterations with its quartiles; the largest difference is that of the final "
    "parameters from the float64 NumPy reference, relative to each array's largest entry. 'slice' rows train on the "
    "few ratings that plain Python loops can bear."
)


def table(result: Json) -> list[list[str]]:
    """The rows of `COLUMNS`, the baselines and the noise floor last."""
    rows = [_row(row) for row in result["rows"]]
    blank = ["", "", "", "", "", "", "", ""]
    for name, scores in result["baselines"].items():
        rows.append([name, *blank[1:], "", f"{scores['rmse']:.4f}", "", ""])
    if result["noise_floor"] is not None:
        rows.append(["noise floor", *blank[1:], "", f"{result['noise_floor']:.4f}", "", ""])
    return rows


def _row(row: Json) -> list[str]:
    name = row["backend"] + (" (slice)" if row["problem"] == "slice" else "")
    head = [name, row["device"], row["dtype"]]
    status = "FAILED: " + str(row["reason"]) if row["status"] == "failed" else row["status"]
    if row["status"] == "not run":
        status = f"not run: {row['reason']}"
    if "ms" not in row:
        return [*head, *[""] * (len(COLUMNS) - 4), status]
    ms, memory = row["ms"], row["peak_cuda_bytes"] or row["peak_memory_bytes"]
    difference = "reference" if row.get("bound") == 0.0 else f"{row.get('difference', float('nan')):.1e}"
    return [
        *head,
        f"{ms['median']:.3g}",
        f"{ms['q1']:.3g}-{ms['q3']:.3g}",
        f"{row['ratings_per_s'] / 1e6:.3g}",
        f"{sum(row['warm_up'].values()):.1f}",
        f"{memory / 2**20:.0f}",
        f"{row['final']['train_rmse']:.4f}",
        f"{row['final']['valid_rmse']:.4f}",
        difference,
        status,
    ]


def verdict(result: Json) -> str:
    """The result in one sentence or two."""
    full = [r for r in result["rows"] if r["problem"] == "full" and r["status"] == "ok" and "ms" in r]
    failed = [r for r in result["rows"] if r["status"] == "failed"]
    if failed:
        return f"NOT EQUAL: {len(failed)} of {len(result['rows'])} cases failed; see their rows."
    if not full:
        return "Nothing was compared."
    text = f"By hand and by autograd are equal on all {len(full)} full cases that ran"
    fastest = min(full, key=lambda r: r["ms"]["median"])
    same = [r for r in full if r["backend"] == "torch" and r["dtype"] == fastest["dtype"]]
    if same and fastest["backend"] != "torch":
        ratio = same[0]["ms"]["median"] / fastest["ms"]["median"]
        text += f"; {fastest['backend']} ({fastest['dtype']}) does an iteration {ratio:.0f} times as fast as autograd"
        text += f" on the {same[0]['device'].upper()}"
    rmse = fastest["final"]["valid_rmse"]
    text += f". Validation RMSE {rmse:.4f}, bias-only {result['baselines']['bias-only']['rmse']:.4f}"
    if result["noise_floor"] is not None:
        text += f", noise floor {result['noise_floor']:.4f}"
    return text + ("." if result["complete"] else "; the run was interrupted.")


def write(result: Json, folder: Path) -> tuple[Path, Path]:
    """Write ``result.json`` and ``report.html`` into `folder`, each under a temporary name first."""
    for name, text in {"result.json": to_text(result), "report.html": html(result)}.items():
        write_atomically(folder / name, text)
    return folder / "result.json", folder / "report.html"


def html(result: Json) -> str:
    """The page: the verdict, the table, the plots, machine and method, and the result itself."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    rows = table(result)
    status = [row["status"].replace(" ", "-") for row in result["rows"]] + [""] * len(rows)
    figures = [{"title": t, "text": x, "svg": Markup(svg)} for t, x, svg in _figures(result)]
    machine = result["machine"]
    facts = [
        ("CPU", machine["cpu"]),
        ("cores", ", ".join(f"{n} {kind}" for kind, n in machine["cores"].items())),
        ("memory", f"{machine['memory_bytes'] / 2**30:.0f} GiB"),
        ("GPU", ", ".join(gpu["name"] for gpu in result["gpus"]) if result["gpus"] else "none seen"),
        ("system", f"{machine['system']} {machine['system_release']}, {machine['architecture']}"),
        ("Python", machine["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in result["packages"].items() if version)),
        ("threads", ", ".join(f"{name}={n}" for name, n in result["environment"]["set"].items())),
        ("commit", _commit(result["git"])),
        ("made", result["made"]),
        ("data", f"{result['data']['name']}, SHA-256 {result['data']['fingerprint'][:16]}…"),
        ("settings", ", ".join(f"{k}={v}" for k, v in result["config"].items() if v is not None)),
    ]
    page = environment.get_template("report.html.j2").render(
        result=result,
        verdict=verdict(result),
        columns=COLUMNS,
        table=[{"cells": cells, "status": s} for cells, s in zip(rows, status, strict=False)],
        legend=LEGEND,
        figures=figures,
        machine=facts,
        safety=SAFETY,
        # "</" would end the script element.
        raw=Markup(to_text(result).replace("</", "<\\/")),
    )
    return page + "\n"


def _commit(git: Json | None) -> str:
    if git is None:
        return "not a git checkout"
    return git["commit"] + (" and changes not committed" if git["dirty"] else "")


def _figures(result: Json) -> Iterator[tuple[str, str, str]]:
    full = [r for r in result["rows"] if r["problem"] == "full" and r.get("history") and "ms" in r]
    if not full:
        return
    labels = [f"{r['backend']} {r['device']} {r['dtype']}" for r in full]

    figure, axes = _figure()
    for row, label in zip(full, labels, strict=True):
        if row["dtype"] == "float64":
            style = {"numpy": "-", "numba": "--", "torch": ":"}[row["backend"]]
            width = {"numpy": 4.5, "numba": 2.5, "torch": 1.5}[row["backend"]]
            epochs = [h["epoch"] for h in row["history"]]
            axes.plot(epochs, [h["valid_rmse"] for h in row["history"]], style, lw=width, label=f"{label}, validation")
    for name, scores in result["baselines"].items():
        axes.axhline(scores["rmse"], lw=0.8, color="#888888")
        axes.annotate(name, (0.99, scores["rmse"]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    if result["noise_floor"] is not None:
        axes.axhline(result["noise_floor"], lw=0.8, color="#888888")
        axes.annotate(
            "noise floor", (0.99, result["noise_floor"]), xycoords=("axes fraction", "data"), ha="right", va="top"
        )
    axes.set(xlabel="epoch", ylabel="RMSE (rating units)")
    axes.legend(frameon=False, fontsize=9, loc="upper center")
    yield (
        "Learning curves",
        "Validation RMSE against the epoch; hand-written and autograd lie on each other.",
        _svg(figure),
    )

    figure, axes = _figure(0.5 * len(full) + 1.2)
    rates = [r["ratings_per_s"] / 1e6 for r in full]
    axes.barh(labels, rates, color="#4c78a8")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 3, max(rates) * 4)
    for at, rate in enumerate(rates):
        axes.annotate(f" {rate:.3g}", (rate, at), va="center")
    axes.set(xlabel="million ratings a second, log scale")
    text = "Ratings per second of a full-batch iteration: " + ", ".join(
        f"{label} {rate:.3g} million" for label, rate in zip(labels, rates, strict=True)
    )
    yield "Speed", text + ".", _svg(figure)

    figure, axes = _figure()
    for row, label in zip(full, labels, strict=True):
        points = [(p["epoch"], p["difference"]) for p in row.get("drift", []) if p["difference"] > 0]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.2, label=label)
    axes.set(xlabel="step", ylabel="relative difference from the reference", yscale="log")
    axes.legend(frameon=False, fontsize=9)
    yield "Drift", "Largest relative difference of the parameters from the float64 NumPy reference.", _svg(figure)


def _figure(height: float = 3.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    """Inline SVG in the page's own text colour, the same bytes every time."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "mf", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    # Black ink follows the page, so that a figure reads in light and dark.
    return re.sub(r"#000000|black", "currentColor", drawn).replace("<text ", '<text fill="currentColor" ')
