"""``python -m mf_torch.distributed``: cut ratings into parts; then, under torchrun, fit them on several processes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from mf_numpy.cli import (
    BACKEND_GROUP,
    DEFAULT_RECIPE,
    FIT_GROUP,
    INTERRUPTED,
    Data,
    Reader,
    Recipe,
    Settings,
    flat,
    run,
)

app = App(
    name="python -m mf_torch.distributed",
    help="Matrix factorisation of ratings on several processes and machines.",
    help_format="plaintext",
    version_flags=[],
    result_action="return_value",
    help_epilogue="Try: python -m mf_torch.distributed partition planted parts --parts 2\n\n"
    "then: torchrun --nproc-per-node 2 -m mf_torch.distributed fit parts",
)
FAILED = 1
_NO_READER, _NO_SETTINGS = Reader(), Settings()


@app.command
@flat(reader=Reader)
def partition(
    data: Data,
    folder: Annotated[str, Parameter(help="Folder to make.")],
    /,
    *,
    parts: Annotated[int, Parameter(validator=Number(gte=1), help="Parts by user; as many processes, or a divisor.")],
    valid: Annotated[float, Parameter(help="Share of the ratings to hold out, 0 for none.")] = 0.0,
    seed: Annotated[int, Parameter(help="Seed of the permutation that is held out from.")] = 0,
    reader: Any = _NO_READER,
) -> None:
    """Write ratings as a Parquet data set in parts that hold about as many ratings each."""
    from mf_numpy.cli_output import console, facts, read
    from mf_numpy.split import random_split
    from mf_torch.distributed import partition as write

    ratings = read(data, asdict(reader))
    split = random_split(ratings, valid=valid, seed=seed) if valid else None
    train = ratings.compact() if split is None else split.train
    write(train, folder, parts=parts, valid=None if split is None else split.valid)
    console().print(f"{data}: {facts(train)}\nwritten to {folder} in {parts} parts", soft_wrap=True)


@app.command
@flat(settings=Settings)
def fit(
    folder: Annotated[str, Parameter(help="Folder that `partition` made.")],
    /,
    *,
    recipe: Recipe = None,
    output: Annotated[
        str | None,
        Parameter(name=("--output", "-o"), group=FIT_GROUP, help="File to gather the model into; none by default."),
    ] = None,
    checkpoint: Annotated[
        str | None, Parameter(group=FIT_GROUP, help="Folder of checkpoints; a fit that has some there goes on.")
    ] = None,
    checkpoint_every: Annotated[int, Parameter(group=FIT_GROUP, help="Epochs between two checkpoints.")] = 10,
    device: Annotated[str, Parameter(group=BACKEND_GROUP, help="cpu, or cuda for a GPU a process.")] = "cpu",
    shard_items: Annotated[
        bool, Parameter(group=BACKEND_GROUP, negative="", help="Keep each item's row on one process, not on all.")
    ] = False,
    settings: Any = _NO_SETTINGS,
) -> int:
    """Fit a model on all processes that torchrun started, or on this one alone."""
    from mf_numpy.cli_fit import given_of
    from mf_numpy.cli_output import console, warn
    from mf_numpy.errors import choose
    from mf_numpy.files import check_writable
    from mf_numpy.progress import Progress
    from mf_numpy.recipes import RECIPES
    from mf_numpy.result import FitResult
    from mf_torch import distributed
    from mf_torch.distributed.group import Group, lost

    config = replace(RECIPES[choose("recipe", recipe or DEFAULT_RECIPE, RECIPES)].config, **given_of(asdict(settings)))
    first = _rank() == 0
    out = console()
    try:
        with distributed.joined(device):
            if output is not None:
                Group(device).agree(lambda: check_writable(output))
            with Progress(out, config.n_epochs) if first else contextlib.nullcontext() as progress:
                result = distributed.fit(
                    folder,
                    config,
                    device=device,
                    shard_items=shard_items,
                    checkpoint=checkpoint,
                    checkpoint_every=checkpoint_every,
                    callback=progress,
                    gather=output is not None,
                )
            if output is not None and isinstance(result, FitResult):
                result.save(output)
    except KeyboardInterrupt:
        warn(f"interrupted; {_kept(checkpoint)}")
        return INTERRUPTED
    except RuntimeError as error:
        if not lost(error):
            raise
        warn(f"process {_rank()} ends because another is gone ({str(error).splitlines()[0]}); {_kept(checkpoint)}")
        return FAILED
    say = warn if result.status == "diverged" else out.print
    if first:
        say(f"{result.status}: {result.message}")
        if output is not None:
            out.print(f"saved to {output}", soft_wrap=True)
    return int(result.status == "diverged")


def main(tokens: Sequence[str] | None = None) -> int:
    """Run a command line; what is expected to go wrong is said by process 0 alone."""
    if _rank() == 0:
        return run(app, tokens)
    with contextlib.redirect_stderr(io.StringIO()):
        return run(app, tokens)


def _kept(checkpoint: str | None) -> str:
    return "nothing was kept" if checkpoint is None else f"the checkpoints in {checkpoint!r} stay"


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


if __name__ == "__main__":
    sys.exit(main())
