"""Faults of losses other than the squared one; a part of `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

LOSSES = (
    Fault(
        name="labels-of-the-other-kind",
        function="mf_numpy.losses:_leaning",
        right="return sign * sigmoid(away)",
        wrong="return sigmoid(predicted) - (2 * values - 1)",
        origin="One text codes clicks by 0 and 1, the next by -1 and 1; E of the one is used with labels of the other.",
        caught_by=("loops", "complex step", "derivatives of losses", "residuals of the mean"),
    ),
    Fault(
        name="rate-for-its-logarithm",
        function="mf_numpy.losses:LOSSES[poisson].residual",
        right="residual=lambda predicted, values, _: np.exp(predicted) - values,",
        wrong="residual=lambda predicted, values, _: 1 - values / predicted,",
        origin="The derivative by the rate is taken where r̂ is the rate's logarithm: PoissonNLLLoss has a flag for it.",
        caught_by=("loops", "complex step", "derivatives of losses"),
    ),
    Fault(
        name="mean-without-its-link",
        function="mf_numpy.losses:prediction_of",
        right="return float(LOSSES[config.loss].link(np.float64(mean)))",
        wrong="return mean",
        origin="μ is left at the mean click, 0.2, which the sigmoid takes for a probability of 0.55.",
        caught_by=("means of losses", "residuals of the mean"),
    ),
    Fault(
        name="chosen-for-nothing",
        function="mf_numpy.losses:LOSSES[all_pairs].residual",
        right="residual=lambda predicted, values, alpha: 2 * alpha * values * (predicted - 1) - 2,",
        wrong="residual=lambda predicted, values, alpha: 2 * alpha * values * (predicted - 1),",
        origin="A choice is given its own αr and not the 1 that every pair has, so that its target is missing once.",
        caught_by=("loops", "complex step", "derivatives of losses"),
    ),
    Fault(
        name="gram-of-the-own-side",
        function="mf_numpy.objective:background_pull",
        right='return {"P": 2 * p @ (q.T @ q), "Q": 2 * q @ (p.T @ p)}',
        wrong='return {"P": 2 * p @ (q.T @ q), "Q": 2 * q @ (q.T @ q)}',
        origin="The K × K matrix is computed once and used for both sides: shapes agree, whatever stands in it.",
        caught_by=("loops", "complex step", "gauge identity"),
    ),
    Fault(
        name="rated-pairs-alone",
        function="mf_numpy.solvers.als:_half",
        right="gram[:n_factors] = table[:, :n_factors].T @ table",
        wrong="gram[:n_factors] = 0",
        origin="ALS for ratings is given clicks: where nothing but 1 is seen, 1 is the best answer for everything.",
        caught_by=("sweeps in loops", "slope after a sweep"),
    ),
    Fault(
        name="loser-pushed-up",
        function="mf_numpy.list_losses:_pairwise",
        right="ahead = sigmoid(_behind(scores))",
        wrong="ahead = sigmoid(-_behind(scores))",
        origin="σ(x) is taken for σ(-x): pairs in good order are pulled apart further, and the others are left alone.",
        caught_by=("lists in loops", "lists by complex step", "change of lists"),
    ),
    Fault(
        name="popularity-not-taken-off",
        function="mf_numpy.list_losses:shares",
        right="z = scores - offsets",
        wrong="z = scores",
        origin="Popular items are drawn more often and nobody corrects for it, so that they are pushed down as often.",
        caught_by=("lists in loops", "lists by complex step"),
    ),
    Fault(
        name="items-bend-alone",
        function="mf_numpy.list_losses:_listwise_change",
        right="out: Array = pi * (moved - (pi * moved).sum(axis=1, keepdims=True))",
        wrong="out: Array = pi * (1 - pi) * moved",
        origin="The second derivative of a softmax is taken for its diagonal, as a library's Newton steps may.",
        caught_by=("change of lists", "bend of lists"),
    ),
    Fault(
        name="own-items-drawn",
        function="mf_numpy.sampling:negatives",
        right="refused = np.flatnonzero(_in(own, of_list * n_items + drawn))",
        wrong="refused = np.flatnonzero(np.zeros(len(drawn)))",
        origin="Items are drawn from all, so that what a user chose is held against her by chance.",
        caught_by=("strangers alone", "frequency of draws"),
    ),
    Fault(
        name="all-items-alike",
        function="mf_numpy.sampling:weights",
        right="out: Array = np.bincount(items, minlength=n_items).astype(np.float64) ** config.negative_power",
        wrong="out: Array = np.ones(n_items)",
        origin="The setting is read and not passed on: items are drawn uniformly, with the correction of popular ones.",
        caught_by=("frequency of draws", "price of draws"),
    ),
)
