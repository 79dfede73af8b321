"""Faults of solvers that go where a gradient is zero; a part of `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

SOLVERS = (
    Fault(
        name="ridge-of-a-mean",
        function="mf_numpy.solvers.als:_half",
        right="ridge = (config.reg * len(whole) * rows.weights).astype(own.dtype)",
        wrong="ridge = (config.reg * rows.weights).astype(own.dtype)",
        origin="Normal equations add ratings up where J averages them: λ is carried over as it is, N times too small.",
        caught_by=("sweeps in loops", "slope after a sweep", "at rest in the end"),
    ),
    Fault(
        name="own-bias-taken-off",
        function="mf_numpy.kernels.als:rows_kernel",
        right="left -= other_bias[i]",
        wrong="left -= own_bias[row]",
        origin="What is left for a row to explain lacks the bias that is being sought instead of the partner's.",
        caught_by=("sweeps in loops", "slope after a sweep"),
    ),
    Fault(
        name="steepest-descent",
        function="mf_numpy.kernels.cg:steps_kernel",
        right="p, p_b = add(scale(p, share), one, r), r_b + share * p_b  # Eq. 32",
        wrong="p, p_b = copy(r), r_b",
        origin="Each step follows the slope alone; without a share of the last direction, K steps are not enough.",
        caught_by=("sweeps in loops", "slope after a sweep"),
    ),
    Fault(
        name="product-without-penalty",
        function="mf_numpy.kernels.cg:steps_kernel",
        right="a, a_b = scale(copy(p), reg), reg * p_b",
        wrong="a, a_b = scale(copy(p), reg - reg), mu - mu",
        origin="The ratings' part of the matrix is applied and its diagonal forgotten, though the right side has it.",
        caught_by=("sweeps in loops", "slope after a sweep"),
    ),
    Fault(
        name="residual-of-the-last-factor",
        function="mf_numpy.kernels.cd:factor_kernel",
        right="error = e[k] - p_last * last_other[i] + p_old * old_other[i]",
        wrong="error = e[k] + p_old * old_other[i]",
        origin="The factor that has just moved is not taken out of the residuals: the next one explains it again.",
        caught_by=("sweeps in loops", "slope after a sweep"),
    ),
    Fault(
        name="bias-without-its-ridge",
        function="mf_numpy.kernels.cd:bias_kernel",
        right="lower = (end - begin) + ridge[row]",
        wrong="lower = float(end - begin)",
        origin="Biases are taken to be plain means of what is left, as if the penalty were the factors' alone.",
        caught_by=("sweeps in loops", "at rest in the end"),
    ),
)
