"""The result file: its schema, how it is written and read, and the verdict in one sentence.

Top level of version 1:
    schema, schema_version, created (UTC), suite, ok, interrupted, verdict
    git {commit, dirty} or null, code (SHA-256 of the sources)
    machine, gpu or null, packages, environment {set, removed}
    data {name, fingerprint, split, counts, noise_floor or null}, baselines {name: scores}
    problems {full|slice: {config, n_ratings, n_users, n_items, float64_drift}}, seed
    rules {float64_bound, safety, eps32_over_eps64, rmse_range or null, rmse_judged}
    rows [{problem, backend, device, dtype, status: ok|FAILED|not run, reason, check, warm_up, samples_ms, timing,
           cost, history, final, difference, peak_memory_bytes, peak_cuda_bytes, threads, pools, gpu,
           others_busy_cores}]
    roofline {caches, levels, peaks, problem, rows, others_busy_cores} as in `bench.kernels`, where it was measured

Numbers that are not finite are null. Nothing in it names a person, a host or a folder.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mf_numpy.errors import ConfigError, FileFormatError

Json = dict[str, Any]

SCHEMA = "mf-bench"
VERSION = 1

_PATH = re.compile(r"(?<![\w.:/\\<])(?:[A-Za-z]:)?[\\/](?:[^\\/\s'\":,;()]+[\\/])+(?P<name>[^\\/\s'\":,;()]*)")


def clean(value: Any) -> Any:
    """A copy fit for the file: folders cut from every text, numbers that are not finite made None."""
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, str):
        return _PATH.sub(_file_name, value.replace(str(Path.home()), "~"))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _file_name(path: re.Match[str]) -> str:
    # A last part without a suffix may be a folder that bears a person's name.
    return path["name"] if "." in path["name"] else "<path>"


def to_text(result: Json) -> str:
    """The JSON text of a result, the same for equal results."""
    return json.dumps(clean(result), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` in one step: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def target(path: Path) -> Path:
    """The path of a result, where it can be written: to be asked before what takes hours.

    Raises:
        ConfigError: a folder, or a place in which no file can be made.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it")
    above = next(one for one in path.absolute().parents if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"{path} cannot be written, as nothing can be made in {above}; name another file")
    return path


def read(path: Path, versions: Mapping[str, int], *, to: str) -> Json:
    """Read a result file of any of several schemas.

    Args:
        versions: what is read, by schema.
        to: what it is read for, a verb.

    Raises:
        FileFormatError: not there, no result, or of another schema or version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path.name} cannot be read: {error.strerror}; give the path of a result file") from None
    except ValueError as error:
        raise FileFormatError(f"{path.name} is not JSON: {error}") from None
    return checked(found, path.name, versions, to=to)


def checked(found: Any, name: str, versions: Mapping[str, int], *, to: str) -> Json:
    """What `name` held, if that is a result of one of the schemas; see `read`."""
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, str) or schema not in versions:
        raise FileFormatError(f"{name} has the schema {schema!r}, but must have one of {', '.join(versions)}")
    version = found.get("schema_version")
    if version != versions[schema]:
        newer = isinstance(version, int) and version > versions[schema]
        todo = f"{to} with the checkout that wrote it" if newer else "measure again"
        raise FileFormatError(
            f"{name} has version {version!r} of {schema}, but {versions[schema]} is read here; {todo}"
        )
    return dict(found)


def load(path: Path, schema: str = SCHEMA, version: int = VERSION) -> Json:
    """Read a result file of a schema.

    Raises:
        FileFormatError: not there, not a result, or of another schema version.
    """
    try:
        result: Json = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path.name} cannot be read: {error.strerror}; give the path of a result file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileFormatError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(result, dict) or result.get("schema") != schema:
        raise FileFormatError(
            f"{path.name} is no benchmark result of schema {schema}; give one that the benchmark wrote"
        )
    if result.get("schema_version") != version:
        came = result.get("schema_version")
        raise FileFormatError(f"{path.name} has schema version {came!r}, but {version} is read here; run it again")
    return result


def timing(samples_ms: list[float], n_ratings: int) -> Json:
    """Median and spread of the iterations, in ms, and ratings/s at the median."""
    low, middle, high = statistics.quantiles(samples_ms, n=4, method="inclusive")
    return {
        "median_ms": middle,
        "q1_ms": low,
        "q3_ms": high,
        "min_ms": min(samples_ms),
        "max_ms": max(samples_ms),
        "ratings_per_s": n_ratings / (middle / 1e3),
    }


def label(row: Json) -> str:
    """A row's name in a sentence."""
    place = " on CUDA" if row["device"] == "cuda" else ""
    part = " on the slice" if row["problem"] == "slice" else ""
    return f"{row['backend']}{place} {row['dtype']}{part}"


def disturbed(result: Json, row: Json) -> bool:
    """Whether other programs held cores that a timed case needed."""
    # A row of its own number of threads says so.
    threads = row.get("n_threads") or max(result["environment"]["set"].values())
    free = result["machine"]["cores"]["logical"] - (row["others_busy_cores"] or 0.0)
    # A quarter of a core is what an idle desktop uses.
    return bool(row["timing"]) and free < threads - 0.25


def busy(result: Json) -> str | None:
    """A warning that names the cases which other programs disturbed, or None."""
    names = [label(row) for row in result["rows"] if disturbed(result, row)]
    if not names:
        return None
    return (
        f"Other programs held cores that these cases needed, so their times are not to be trusted: {', '.join(names)}."
    )


def verdict(result: Json) -> str:
    """What the run found, in one sentence: equality first, then speed, then quality."""
    ran = [row for row in result["rows"] if row["status"] == "ok"]
    failed = [row for row in result["rows"] if row["status"] == "FAILED"]
    start = "Interrupted: " if result["interrupted"] else ""
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{start}FAILED: {label(failed[0])}{more}: {failed[0]['reason']}."
    if not ran:
        return f"{start}nothing was measured."
    parts = [f"{start}all {len(ran)} runs agree with the float64 NumPy reference within their bounds"]
    quiet = [row for row in ran if not disturbed(result, row)]
    speed = _speed(quiet) or ("no speed is claimed, because the machine was busy" if len(quiet) < len(ran) else None)
    parts += [text for text in (speed, _quality(result, ran)) if text]
    return "; ".join(parts) + "."


def _speed(ran: list[Json]) -> str | None:
    full = sorted((r for r in ran if r["problem"] == "full"), key=lambda r: -float(r["timing"]["ratings_per_s"]))
    if not full:
        return None
    rivals = [r for r in full if r["dtype"] == full[0]["dtype"] and r is not full[0]]
    if not rivals:
        return None
    best = full[0]
    compared = []
    for other in rivals:
        ratio = best["timing"]["ratings_per_s"] / other["timing"]["ratings_per_s"]
        # Interquartile ranges that overlap: no claim.
        if best["timing"]["q3_ms"] < other["timing"]["q1_ms"]:
            compared.append(f"{ratio:.1f} times {_short(other)}")
        else:
            compared.append(f"not clearly faster than {_short(other)}")
    rate = best["timing"]["ratings_per_s"] / 1e6
    return f"fastest is {label(best)} at {rate:.1f} M ratings/s, " + ", ".join(compared)


def _short(row: Json) -> str:
    return str(row["backend"]) + (" on CUDA" if row["device"] == "cuda" else " on the CPU")


def _quality(result: Json, ran: list[Json]) -> str | None:
    full = [row for row in ran if row["problem"] == "full"]
    if not full:
        return None
    text = f"validation RMSE {full[0]['final']['valid_rmse']:.4f}"
    floor, bias = result["data"]["noise_floor"], result["baselines"]["bias-only"]["rmse"]
    beside = [f"bias-only {bias:.4f}"] + ([] if floor is None else [f"noise floor {floor:.4f}"])
    return f"{text} ({', '.join(beside)})"
