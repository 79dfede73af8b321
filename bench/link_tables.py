"""Tables of `mf_torch/README.md`: what processes send, from the committed measurement, and the model carried on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import committed, links, result
from bench.cost import spread

if TYPE_CHECKING:
    from bench.tables import Cells, Source

USERS, ITEMS, RATINGS, FACTORS = 1e9, 1e8, 1e11, 64
"""The data that the model is carried to."""
MEMORY, FILLED = 80e9, 0.9
"""Bytes of a GPU, and the share of it that may be planned for."""
MEMORY_SPEED, LINK_SPEED = 3.35e12, 50e9
"""Bytes a second of an H100's memory, and of the 400 Gbit/s that each GPU of a usual cluster has to other machines."""


def sent(of: Source) -> tuple[Cells, str]:
    """Bytes and time of an iteration by form and number of processes."""
    outcome = result.load(committed.path("links.json"), links.SCHEMA, links.VERSION)
    problem = outcome["problem"]
    head = ["Q, processes", "a process sends, MB", "loopback, all, MB", "rows of Q a process keeps", "ms"]
    cells = [
        head if of.lang == "en" else ["Q，进程数", "每进程发送 MB", "回环接口共计 MB", "每进程保留 Q 的行数", "毫秒"]
    ]
    for row in outcome["rows"]:
        if row["timing"] is None:
            cells.append([f"{row['form']}, {row['processes']}", "–", "–", "–", str(row["status"])])
            continue
        shown = ["–" if x is None else f"{x / 1e6:.2f}" for x in (row["sent_bytes"], row["wire_bytes"])]
        time = f"{row['timing']['median_ms']:.0f}"
        cells.append([f"{row['form']}, {row['processes']}", *shown, f"{row['item_rows']:,}", time])
    touched = min(row["touched_share"] for row in outcome["rows"] if row["touched_share"] is not None)
    busy = outcome["others_busy_cores"] or 0.0
    about, size, n = outcome["machine"], problem, len(outcome["rows"][0]["samples_ms"])
    note = (
        f"One iteration of {size['n_ratings']:,} planted ratings, {size['n_users']:,} users, {size['n_items']:,} "
        f"items, K = {size['n_factors']}, {size['dtype']}, a thread a process, gloo; median of {n}; "
        f"{committed.processor(about)}, {about['cores']['usable']} cores, which three processes share; "
        f"others kept {busy:.2f} cores busy. "
        f"A process's ratings touch {100 * touched:.0f} % of the items or more."
    )
    return cells, note


def carried(of: Source) -> tuple[Cells, str]:
    """The model at 10⁹ users, 10⁸ items and 10¹¹ ratings, on the fewest GPUs that hold it and on more."""
    least = fewest()
    head = ["GPUs", "GB a GPU, ring", "GB a GPU, Q on each", "s at its link", "s at its memory"]
    cells = [
        head if of.lang == "en" else ["GPU 数", "每 GPU 的 GB，环", "每 GPU 的 GB，各存 Q", "链路秒数", "显存秒数"]
    ]
    for gpus in (least, 2 * least, 8 * least):
        round_, each = (spread(USERS, ITEMS, RATINGS, FACTORS, gpus, ring=ring) for ring in (True, False))
        cells.append(
            [
                f"{gpus:,}",
                f"{round_.held / 1e9:.0f}",
                f"{each.held / 1e9:.0f}",
                f"{round_.sent / LINK_SPEED:.2f}",
                f"{round_.passed / MEMORY_SPEED:.2f}",
            ]
        )
    note = (
        f"K = {FACTORS}, float32, the ring; {FILLED:.0%} of {MEMORY / 1e9:.0f} GB may be filled, so {least} GPUs are "
        f"the fewest. An iteration takes at least the longer of the two times: {LINK_SPEED / 1e9:.0f} GB/s between "
        f"machines, {MEMORY_SPEED / 1e12:.2f} TB/s in a GPU. A calculation (`bench.cost.spread`), not a measurement."
    )
    return cells, note


def fewest() -> int:
    """GPUs that hold the ring of the data above."""
    gpus = 1
    while spread(USERS, ITEMS, RATINGS, FACTORS, gpus, ring=True).held > FILLED * MEMORY:
        gpus += 1
    return gpus
