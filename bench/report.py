"""The report: one HTML file that needs nothing else, the same bytes for the same result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import table
from bench.result import busy, clean, to_text

Json = dict[str, Any]


def render(result: Json) -> str:
    """The page of a result. Needs jinja2 and matplotlib.

    Raises:
        ImportError: one of them is not installed.
    """
    from bench import figures

    result = json.loads(to_text(clean(result)))
    return page(
        "report.html.j2",
        result,
        result=result,
        title=table.title(result),
        columns=table.COLUMNS,
        rows=[(row, table.cells(row)) for row in result["rows"]],
        busy=busy(result),
        yardsticks=table.yardsticks(result),
        pictures=figures.pictures(result),
        machine=_machine(result),
        config=_config(result),
        problems=result["problems"],
        checks=_checks(result),
        costs=_costs(result),
    )


def page(template: str, held: Json, **values: Any) -> str:
    """A page from a template beside this file, which carries `held` as JSON.

    Raises:
        ImportError: jinja2 is not installed.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    # "<" would let a text end the script element early.
    embedded = to_text(held).replace("<", "\\u003c")
    return environment.get_template(template).render(embedded=embedded, **values)


def machine_lines(result: Json) -> list[tuple[str, str]]:
    """What every result says of where it came from, for a page."""
    machine, environment = result["machine"], result["environment"]
    cores, gpu, git = machine["cores"], result["gpu"], result["git"]
    return [
        ("processor", machine["cpu"]),
        ("cores", f"{cores['usable']} usable of {cores['logical']} logical, {cores['physical'] or 'unknown'} physical"),
        ("memory", _gib(machine["memory_bytes"])),
        ("GPU", "none seen" if not gpu else ", ".join(f"{g['name']} ({_gib(g['memory_bytes'])})" for g in gpu)),
        ("system", f"{machine['system']} {machine['system_release']}, {machine['architecture']}"),
        ("Python", machine["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in result["packages"].items() if version)),
        ("threads", ", ".join(f"{name}={value}" for name, value in environment["set"].items())),
        ("removed from the environment", ", ".join(environment["removed"]) or "nothing was there to remove"),
        (
            "commit",
            "not a git checkout" if not git else git["commit"][:12] + (", with changes" if git["dirty"] else ""),
        ),
        ("code", result["code"][:12]),
        ("finished", result["created"]),
    ]


def _machine(result: Json) -> list[tuple[str, str]]:
    data = f"{result['data']['name']}, fingerprint {result['data']['fingerprint'][:12]}"
    return [*machine_lines(result), ("BLAS", _blas(result)), ("data", data)]


def _blas(result: Json) -> str:
    seen = []
    for row in result["rows"]:
        for pool in row["pools"] or []:
            text = f"{pool.get('internal_api')} {pool.get('version') or ''}".strip()
            if pool.get("architecture"):
                text += f" ({pool['architecture']})"
            if pool.get("user_api") == "blas" and text not in seen:
                seen.append(text)
    return ", ".join(seen) or "unknown (threadpoolctl is not installed)"


def _config(result: Json) -> list[tuple[str, str]]:
    if "full" not in result["problems"]:
        return []
    skip = ("dtype", "patience", "tol", "min_delta", "lr_decay", "lr_schedule")
    config = result["problems"]["full"]["config"]
    return [(name, _plain(value)) for name, value in config.items() if name not in skip]


def _checks(result: Json) -> list[list[str]]:
    return [
        [
            f"{row['backend']} {row['device']} {row['dtype']}, {row['problem']}",
            f"{row['check']['gradient']:.1e}" if row["check"]["gradient"] is not None else "not finite",
            f"{row['check']['trajectory']:.1e}" if row["check"]["trajectory"] is not None else "not finite",
            f"{row['check']['bound']:.1e}",
            "equal" if row["check"]["passed"] else "FAILED",
        ]
        for row in result["rows"]
        if row["check"]
    ]


def _costs(result: Json) -> list[list[str]]:
    out = []
    for row in result["rows"]:
        if row["cost"]:
            cost, warm = row["cost"], row["warm_up"]
            out.append(
                [
                    f"{row['backend']} {row['device']} {row['dtype']}, {row['problem']}",
                    f"{cost['flops_per_rating']:.0f}",
                    f"{cost['gflops_per_s']:.3g}",
                    f"{cost['bytes_per_rating']:.0f}",
                    f"{cost['gbytes_per_s']:.3g}",
                    f"{warm['imports_s']:.2f}",
                    f"{warm['data_s']:.2f}",
                    f"{warm['first_fit_s']:.2f}",
                    _mib(row["peak_memory_bytes"]),
                    _mib(row["peak_cuda_bytes"]),
                ]
            )
    return out


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _gib(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 2**30:.1f} GiB"


def _mib(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:,.0f}"
