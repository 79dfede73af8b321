"""Faults of Adam and AdaGrad in a fit; a part of `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

RULES = (
    Fault(
        name="size-of-the-last-gradient",
        function="mf_numpy.adaptive:adam",
        right="mean, spread = first / (1 - beta1**steps), np.sqrt(second / (1 - beta2**steps))",
        wrong="mean, spread = first / (1 - beta1**steps), np.sqrt(old.second / (1 - beta2**steps))",
        origin="The step is taken before the mean of squares has seen its gradient: the first one is divided by ε.",
        caught_by=("even steps", "unrolled moments", "batches by hand", "Adam by hand", "trajectories"),
    ),
    Fault(
        name="epsilon-inside-the-root",
        function="mf_numpy.kernels.optim:_adam_kernel",
        right="theta[row, f] -= lr * (m[row, f] / share1) / (np.sqrt(s[row, f] / share2) + eps)",
        wrong="theta[row, f] -= lr * (m[row, f] / share1) / np.sqrt(s[row, f] / share2 + eps)",
        origin="Under the root ε is as large as a gradient of √ε: 1e-4 where 1e-8 was meant.",
        caught_by=("even steps", "unrolled moments"),
    ),
    Fault(
        name="floor-inside-the-root",
        function="mf_numpy.kernels.optim:_adagrad_kernel",
        right="theta[row, f] -= lr * g[row, f] / (np.sqrt(h[row, f]) + floor)",
        wrong="theta[row, f] -= lr * g[row, f] / np.sqrt(h[row, f] + floor)",
        origin="The paper of AdaGrad has δ beside the root, and many codes have it inside.",
        caught_by=("even steps", "unrolled moments"),
    ),
    Fault(
        name="steps-counted-in-epochs",
        function="mf_numpy.engine:NumpyEngine.step",
        right="moved, memory = update(tensors, state.memory, seen.gradient, lr, config)",
        wrong="memory = state.memory and replace(state.memory, steps=state.epoch)\n"
        "moved, memory = update(tensors, memory, seen.gradient, lr, config)",
        origin="t is the loop's epoch, which is the number of updates in full batches only.",
        caught_by=("moments at rest", "batches by hand"),
    ),
    Fault(
        name="sum-of-one-batch",
        function="mf_numpy.adaptive:adagrad",
        right="sums = grad**2 if sums is None else sums + grad**2",
        wrong="sums = grad**2",
        origin="h is made anew in every step, so that each has the length η and none ever shrinks.",
        caught_by=("even steps", "unrolled moments", "moments at rest", "batches by hand", "trajectories"),
    ),
)
