"""The faults that the checks must reject: each a line of the real source, as somebody gets it wrong.

In the order of the derivation: gradient (`mf_numpy.catalogue_gradient`), updates and second derivatives,
minimiser, gauge and start, batches and epochs, ratings and ids; then Adam and AdaGrad (`mf_numpy.catalogue_rules`),
single ratings (`mf_numpy.catalogue_sgd`), the solvers that go where a gradient is zero
(`mf_numpy.catalogue_solvers`), features (`mf_numpy.catalogue_design`), questions (`mf_numpy.catalogue_asking`),
draws (`mf_numpy.catalogue_gibbs`, `mf_numpy.catalogue_several`, `mf_numpy.catalogue_hmc`, `mf_numpy.catalogue_probit`)
and other losses (`mf_numpy.catalogue_losses`).
"""

from __future__ import annotations

from mf_numpy.catalogue_asking import ASKING
from mf_numpy.catalogue_design import DESIGN
from mf_numpy.catalogue_gibbs import GIBBS
from mf_numpy.catalogue_gradient import GRADIENT
from mf_numpy.catalogue_hmc import HMC
from mf_numpy.catalogue_losses import LOSSES
from mf_numpy.catalogue_ordinal import ORDINAL
from mf_numpy.catalogue_probit import PROBIT
from mf_numpy.catalogue_rules import RULES
from mf_numpy.catalogue_several import SEVERAL
from mf_numpy.catalogue_sgd import SGD
from mf_numpy.catalogue_solvers import SOLVERS
from mf_numpy.faults import Fault

_UPDATES = (
    Fault(
        name="stale-residual",
        function="mf_numpy.engine:NumpyEngine.step",
        right="seen = gradient(state.params, batch, config)",
        wrong="seen = state.evaluation or gradient(state.params, batch, config)",
        origin="E is kept for speed and never refreshed after the parameters moved.",
        caught_by=("trajectories", "resumed run"),
    ),
    Fault(
        name="nesterov-for-heavy-ball",
        function="mf_numpy.optim:update",
        right='if config.momentum_form == "nesterov":',
        wrong='if config.momentum_form != "ema":',
        origin="Both are called momentum, and both have v ← βv + g; only one of them looks a step ahead.",
        caught_by=("trajectories", "constant gradient", "unrolled velocity", "worked example"),
    ),
    Fault(
        name="lr-inside-the-velocity",
        function="mf_numpy.engine:NumpyEngine.step",
        right="moved, memory = update(tensors, state.memory, seen.gradient, lr, config)",
        wrong="scaled = {name: lr * g for name, g in seen.gradient.items()}\n"
        "moved, memory = update(tensors, state.memory, scaled, 1.0, config)",
        origin="Sutskever's v ← βv - ηg, θ ← θ + v: the same path until η changes; then the past has the wrong scale.",
        caught_by=("trajectories", "unrolled velocity", "velocity at rest"),
    ),
    Fault(
        name="zero-first-velocity",
        function="mf_numpy.optim:velocity",
        right="return grad.copy()",
        wrong="old = 0 * grad",
        origin="v starts at 0 instead of at g₀, so the first step of the average is 1-β as long as it should be.",
        caught_by=("trajectories", "constant gradient", "unrolled velocity", "first-order decrease", "worked example"),
    ),
    Fault(
        name="dampening-forgotten",
        function="mf_numpy.optim:velocity",
        right='kept = 1 - beta if config.momentum_form == "ema" else 1.0',
        wrong="kept = 1.0",
        origin="The post's average is taken for the heavy ball, which goes 1/(1-β) times as fast at the same η.",
        caught_by=("trajectories", "constant gradient", "unrolled velocity", "worked example"),
    ),
    Fault(
        name="decoupled-decay",
        function="mf_numpy.engine:NumpyEngine.step",
        right="moved, memory = update(tensors, state.memory, seen.gradient, lr, config)",
        wrong="data = gradient(state.params, batch, replace(config, reg=0.0)).gradient\n"
        "moved, memory = update(tensors, state.memory, data, lr, config)\n"
        "moved = {name: theta - lr * (seen.gradient[name] - data[name]) for name, theta in moved.items()}",
        origin="Shrinking θ beside the step is L2 in plain gradient descent (Eq. 9), and no longer under momentum.",
        caught_by=("trajectories", "unrolled velocity", "velocity at rest"),
    ),
    Fault(
        name="adam-l2-for-decay",
        function="mf_numpy.adaptive:adam",
        right="theta = (1 - lr * decay) * theta",
        wrong="grad = grad + decay * theta",
        origin="d2l takes weight decay under Adam for L2; but Adam divides that pull by its own size.",
        caught_by=("Adam by hand", "Adam's scale"),
    ),
    Fault(
        name="gauss-newton-for-hessian",
        function="mf_numpy.curvature:hessian_vector",
        right='"P": (d_e @ params.Q + e @ d_q) * share + (reg * w_u)[:, None] * d_p,',
        wrong='"P": (d_e @ params.Q) * share + (reg * w_u)[:, None] * d_p,',
        origin="Gauss and Newton drop E from the second derivative; that is close near a good fit only.",
        caught_by=("slope of the gradient", "bend of the objective"),
    ),
    Fault(
        name="lr-bound-sign",
        function="mf_numpy.curvature:max_lr",
        right="bound = 2 * (1 + beta) / curvature",
        wrong="bound = 2 * (1 - beta) / curvature",
        origin="One expects momentum to need smaller steps; it does not: its bound on η is the larger one.",
        caught_by=("edge of stability", "spectral radius"),
    ),
    Fault(
        name="block-without-its-2",
        function="mf_numpy.curvature:row_block",
        right="block += 2 * config.reg * w * np.eye(others.shape[1])",
        wrong="block += config.reg * w * np.eye(others.shape[1])",
        origin="The normal matrix of ALS has λI beside Σqqᵀ; the Hessian of J has twice both.",
        caught_by=("blocks of the Hessian", "bend of the objective", "ridge minimiser"),
    ),
    Fault(
        name="cross-block-transposed",
        function="mf_numpy.curvature:cross_block",
        right="out: Array = (bend * np.outer(q, p) + e * meets) / len(batch)",
        wrong="out: Array = (bend * np.outer(p, q) + e * meets) / len(batch)",
        origin="p is written beside ∂p: but the slope of r̂ along p is q, so q stands in the rows.",
        caught_by=("blocks of the Hessian", "bend of the objective"),
    ),
    Fault(
        name="differential-of-factors-only",
        function="mf_numpy.gradients:differential",
        right="return sum(float((gradient[name] * d).sum()) for name, d in direction.items())",
        wrong='return sum(float((gradient[name] * d).sum()) for name, d in direction.items() if name in "PQ")',
        origin="dJ is derived for the factors, and the biases, which came later, are left out of the sum.",
        caught_by=("along a line", "bend of the objective"),
    ),
)

_SOLUTIONS = (
    Fault(
        name="ridge-without-n",
        function="mf_numpy.curvature:row_minimiser",
        right="ridge = len(batch) * config.reg * w",
        wrong="ridge = config.reg * w",
        origin="ALS is written for a sum of squares, and λ is taken over from an objective with a mean.",
        caught_by=("ridge minimiser", "balance at the end"),
    ),
    Fault(
        name="gauge-not-transposed",
        function="mf_numpy.gauge:regauge",
        right="return replace(params, P=params.P @ A, Q=params.Q @ np.linalg.inv(A).T)",
        wrong="return replace(params, P=params.P @ A, Q=params.Q @ np.linalg.inv(A))",
        origin="Q A⁻¹ looks like the inverse of P A; Q stands transposed in the product, so its A does too.",
        caught_by=("gauge freedom", "gauge group"),
    ),
    Fault(
        name="all-weight-on-both-sides",
        function="mf_numpy.gauge:canonical",
        right="scale = signs * np.sqrt(s)",
        wrong="scale = signs * s",
        origin="The singular values of a product are given to each of its two factors whole.",
        caught_by=("gauge freedom", "cheapest factors"),
    ),
    Fault(
        name="frobenius-for-nuclear",
        function="mf_numpy.gauge:nuclear_norm",
        right="return float(_svd(params)[1].sum())",
        wrong="return float(np.sqrt((_svd(params)[1] ** 2).sum()))",
        origin="Two norms of the singular values are mixed up; only their sum is what the penalty minimises.",
        caught_by=("nuclear norm", "cheapest factors"),
    ),
    Fault(
        name="unweighted-balance",
        function="mf_numpy.gauge:imbalance",
        right="of_users, of_items = (params.P.T * w_u) @ params.P, (params.Q.T * w_i) @ params.Q",
        wrong="of_users, of_items = params.P.T @ params.P, params.Q.T @ params.Q",
        origin="PᵀP = QᵀQ is what one reads for a total penalty; shares weigh the rows.",
        caught_by=("imbalance in the gradient", "balance at the end"),
    ),
    Fault(
        name="start-without-its-2",
        function="mf_numpy.model:draw",
        right="return rng.uniform(0.0, 2.0 * np.sqrt(max(mean, 0.0) / config.n_factors), shape)",
        wrong="return rng.uniform(0.0, np.sqrt(max(mean, 0.0) / config.n_factors), shape)",
        origin="The end of the range is taken for its mean, so predictions start at a quarter of the mean rating.",
        caught_by=("mean of the start", "range of the start"),
    ),
    Fault(
        name="start-of-one-factor",
        function="mf_numpy.config:_usual_scale",
        right="return 11.0 / config.n_factors",
        wrong="return 11.0",
        origin="The range that suits one factor is kept when there are K of them.",
        caught_by=("mean of the start", "range of the start"),
    ),
)

_EPOCHS = (
    Fault(
        name="same-permutation",
        function="mf_numpy.batch:order_of",
        right="return np.random.default_rng([config.seed, epoch]).permutation(n_ratings)",
        wrong="return np.random.default_rng(config.seed).permutation(n_ratings)",
        origin="The generator is made anew from its seed in every epoch, and draws the same order every time.",
        caught_by=("epochs", "fair shuffle"),
    ),
    Fault(
        name="last-batch-dropped",
        function="mf_numpy.batch:mini_batches",
        right="for begin in range(0, len(whole), config.batch_size):",
        wrong="for begin in range(0, len(whole) - config.batch_size + 1, config.batch_size):",
        origin="drop_last=True, or range(N // B), leaves out the ratings that fill no whole batch.",
        caught_by=("epochs", "fair shuffle", "batch average", "pooled epoch"),
    ),
    Fault(
        name="mean-of-batch-rmses",
        function="mf_numpy.train:_epoch",
        right="squared_error = squared_error + squared",
        wrong="rmse = math.sqrt(squared / len(batch)) * len(batch) / len(whole)\n"
        "squared_error = len(whole) * (math.sqrt(squared_error / len(whole)) + rmse) ** 2",
        origin="d2l averages the RMSEs of batches; the root of a mean is not the mean of the roots.",
        caught_by=("pooled epoch", "epoch of one batch"),
    ),
    Fault(
        name="mean-of-batch-objectives",
        function="mf_numpy.train:_epoch",
        right="objective = objective + seen * (len(batch) / len(whole))",
        wrong="objective = objective + seen / math.ceil(len(whole) / (config.batch_size or len(whole)))",
        origin="The last batch is smaller than the others, and counts as much as they do in an unweighted mean.",
        caught_by=("pooled epoch", "epoch of one batch"),
    ),
    Fault(
        name="validation-in-the-mean",
        function="mf_numpy.train:run",
        right="point = resume.state.copy() if resume else begin(train, config)",
        wrong="point = resume.state.copy() if resume else begin(train, config)\n"
        "if valid is not None and not resume:\n"
        "    mean = float(np.concatenate([train.values, valid.values]).mean())\n"
        "    point = replace(point, params=replace(point.params, mu=mean))",
        origin="μ is taken from the whole table before it is split, so the held-out ratings take part in training.",
        caught_by=("training mean", "held-out values"),
    ),
    Fault(
        name="held-out-in-training",
        function="mf_numpy.split:_split_at",
        right="return hold_out(ratings.take(~mask), ratings.take(mask))",
        wrong="return hold_out(ratings, ratings.take(mask))",
        origin="The held-out ratings are copied out of the table and never taken out of it.",
        caught_by=("held-out values", "two sides"),
    ),
    Fault(
        name="velocity-lost",
        function="mf_numpy.engine:State.copy",
        right="memory = None if self.memory is None else self.memory.copy()",
        wrong="memory = None",
        origin="A checkpoint that holds the parameters and not the optimiser's state starts again from rest.",
        caught_by=("resumed run", "velocity at rest"),
    ),
)

_RATINGS = (
    Fault(
        name="values-in-file-order",
        function="mf_numpy.batch:full_batch",
        right="values = view.arranged(train.values).astype(config.numpy_dtype)",
        wrong="values = train.values.astype(config.numpy_dtype)",
        origin="Users and items are sorted and the ratings beside them are not.",
        caught_by=("order of ratings", "exact minimiser", "worked example", "dense table", "pooled epoch"),
    ),
    Fault(
        name="wrong-sort-key",
        function="mf_numpy.ratings:compress",
        right="order = counting.order(rows, indptr)",
        wrong='order = np.argsort(others, kind="stable")',
        origin="Counts are of one side and the order of the other, as when CSC is made from CSR by hand.",
        caught_by=("dense table", "order of ratings", "loops", "worked example"),
    ),
    Fault(
        name="int8-ids",
        function="mf_numpy.ratings:Ratings.__post_init__",
        right="object.__setattr__(self, name, np.ascontiguousarray(index, dtype=np.int32))",
        wrong="object.__setattr__(self, name, np.ascontiguousarray(index, dtype=np.int8))",
        origin="Small ids are stored in one byte to save memory, and wrap past 127 when the table grows.",
        caught_by=("renamed ids", "dense table", "id round trip"),
    ),
    Fault(
        name="int32-overflow",
        function="mf_numpy.duplicates:Pairs.find",
        right="keys = users.astype(np.int64) * n_items + items",
        wrong="keys = users * np.int32(n_items) + items",
        origin="implicit #441: an index of a pair, u·n + i, passes 2³¹ on large tables and wraps.",
        caught_by=("repeated pairs", "renamed ids"),
    ),
    Fault(
        name="negative-ids-wrap",
        function="mf_numpy.model:check_range",
        right="if array.size and (array.min() < 0 or array.max() >= size):",
        wrong="if array.size and array.max() >= size:",
        origin="-1 marks an unknown id, and NumPy takes it for the last row: a stranger gets the last user's taste.",
        caught_by=("range of ids", "grown tables"),
    ),
)

_ALL = (
    *GRADIENT,
    *_UPDATES,
    *_SOLUTIONS,
    *_EPOCHS,
    *_RATINGS,
    *RULES,
    *SGD,
    *SOLVERS,
    *DESIGN,
    *ASKING,
    *GIBBS,
    *SEVERAL,
    *HMC,
    *LOSSES,
    *ORDINAL,
    *PROBIT,
)
FAULTS = {fault.name: fault for fault in _ALL}
"""By name."""
