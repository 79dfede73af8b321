"""Faults of steps for one rating at a time; a part of `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

SGD = (
    Fault(
        name="item-follows-moved-user",
        function="mf_numpy.kernels.sgd:epoch_kernel",
        right="exchange(P, u, 1 - lr * r_u, Q, i, 1 - lr * r_i, -lr * e, form)",
        wrong="store(P, u, add(scale(p, 1 - lr * r_u), -lr * e, q)); "
        "store(Q, i, add(scale(q, 1 - lr * r_i), -lr * e, load(P, u, form)))",
        origin="p is updated in place and then read for q, which gets a gradient of parameters that never were.",
        caught_by=("steps in loops", "one rating"),
    ),
    Fault(
        name="half-pull",
        function="mf_numpy.solvers.sgd:SgdEngine.load",
        right="pull = 2 * config.reg * len(train) * weights / np.maximum(counts, 1)",
        wrong="pull = config.reg * len(train) * weights / np.maximum(counts, 1)",
        origin="Surprise and others absorb the 2 of the penalty in λ and that of the loss in η: two factors, not one.",
        caught_by=("one rating", "mean step"),
    ),
    Fault(
        name="pull-without-count",
        function="mf_numpy.solvers.sgd:SgdEngine.load",
        right="pull = 2 * config.reg * len(train) * weights / np.maximum(counts, 1)",
        wrong="pull = 2 * config.reg * weights",
        origin="The penalty of all of J is added at every rating as it stands, so that who rates much is pulled more.",
        caught_by=("mean step", "fall over an epoch"),
    ),
    Fault(
        name="diagonal-stays",
        function="mf_numpy.kernels.sgd:epoch_kernel",
        right="other = (share + diagonal) % side",
        wrong="other = share",
        origin="The schedule of blocks does not move on: some ratings are met D times an epoch, and most never.",
        caught_by=("steps in loops", "mean step"),
    ),
    Fault(
        name="sum-without-square",
        function="mf_numpy.kernels.sgd:epoch_kernel",
        right="h_p = add_squares(load(V_p, u, form), g_p)",
        wrong="h_p = add(load(V_p, u, form), 1, g_p)",
        origin="AdaGrad's sum is of squared gradients; their plain sum is the velocity of the heavy ball.",
        caught_by=("steps in loops", "one rating"),
    ),
    Fault(
        name="idle-rows-stay",
        function="mf_numpy.solvers.sgd:_shrink_idle",
        right="theta[idle] *= shrunk.reshape(-1, *[1] * (theta.ndim - 1)).astype(theta.dtype)",
        wrong="pass",
        origin="Steps meet rated rows alone; a penalty on all rows must reach the others, too.",
        caught_by=("mean step", "fall over an epoch"),
    ),
)
