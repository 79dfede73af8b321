"""One model of several fits, whose predictions are the mean of theirs: for those who want no draws.

Fits that differ by their seed err in different places. Their mean is a model of all their factors side by side, as the
mean over draws is (Eq. 70).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mf_numpy import design as by_hand
from mf_numpy.config import SAMPLERS
from mf_numpy.engine import State
from mf_numpy.errors import ConfigError, DataError
from mf_numpy.posterior import Draws
from mf_numpy.result import MEMBERS, FitResult


def ensemble(results: Sequence[FitResult]) -> FitResult:
    """The mean of fits to the same users and items, as a model of S·K factors for S fits of K (Eq. 70).

    Where r̂ is no rating (losses ``logistic``, ``poisson``, ``ordinal``) the mean is of r̂, the score. It has no history,
    nobody can be folded in and no training go on: its rows stand for no single J.

    Raises:
        ConfigError: no fit, one that diverged, one of draws, whose own mean is better, or fits of another model, loss,
            precision or design than the first.
        DataError: fits to other users or items than the first.
    """
    if isinstance(results, FitResult) or not results:
        raise ConfigError("no list of fits came; give one or more, as ensemble([one, other])")
    first = results[0]
    for at, result in enumerate(results):
        if not isinstance(result, FitResult):
            raise ConfigError(f"fit {at} is {result!r}; give what fit returned")
        if result.status == "diverged":
            raise ConfigError(f"fit {at} diverged, and would spoil the mean; leave it out, or fit it with a lower lr")
        if result.config.solver in SAMPLERS:
            raise ConfigError(
                f"fit {at} is of draws by {result.config.solver!r}, a mean already; for several chains set chain_length"
            )
        for name in ("model", "loss", "dtype"):
            one, other = getattr(first.config, name), getattr(result.config, name)
            if one != other:
                raise ConfigError(f"{name} of fit {at} is {other!r}, and of fit 0 {one!r}; fit all with the same")
        ids, theirs = first.catalogue, result.catalogue
        if theirs.user_ids != ids.user_ids or theirs.item_ids != ids.item_ids:
            raise DataError(f"fit {at} is of other users or items than fit 0; fit all to the same ratings")
        if (result.design is None) != (first.design is None) or (
            result.design is not None and first.design is not None and not result.design.same_as(first.design)
        ):
            raise ConfigError(f"fit {at} has another design than fit 0; fit all with the same")
    points = [result.of_features or result.params for result in results]
    mean = Draws(points, (1.0,) * len(points)).mean()  # Eq. 70
    config = replace(first.config, n_factors=mean.P.shape[1])
    about = replace(
        first,
        config=config,
        history=(),
        message=f"the mean of {len(points)} fits",
        state=State(mean),
        params=mean,
        details={**first.details, MEMBERS: len(points)},
    )
    if first.design is None:
        return about
    return replace(about, params=by_hand.rows(mean, first.design), of_features=mean)
