"""The faults that the checks must reject: each a line of the real source, as somebody gets it wrong.

In the order of the derivation: gradient, updates and second derivatives, batches and epochs, ratings and ids.
"""

from __future__ import annotations

from mf_numpy.faults import Fault

_GRADIENT = (
    Fault(
        name="dropped-2",
        function="mf_numpy.losses:LOSSES[squared].residual",
        right="residual=lambda error, delta: 2 * error,",
        wrong="residual=lambda error, delta: error,",
        origin="A slip on paper: the 2 of (r̂ - r)² is lost, or left for the learning rate to make up.",
        caught_by=("loops", "complex step", "derivatives of losses", "along a line", "worked example"),
    ),
    Fault(
        name="huber-without-root",
        function="mf_numpy.losses:LOSSES[pseudo_huber].residual",
        right="residual=lambda error, delta: 2 * error / _root(error, delta),",
        wrong="residual=lambda error, delta: 2 * error,",
        origin="The loss is changed and its derivative is not: E is left as that of the square.",
        caught_by=("loops", "complex step", "derivatives of losses", "worked example"),
    ),
    Fault(
        name="penalty-2-dropped",
        function="mf_numpy.gradients:gradient",
        right="reg = 2 * config.reg",
        wrong="reg = config.reg",
        origin="λ|θ|² is taken for ½λ|θ|², which other texts minimise: its derivative is λθ, not 2λθ.",
        caught_by=("loops", "complex step", "along a line", "worked example", "exact minimiser"),
    ),
    Fault(
        name="penalty-sign",
        function="mf_numpy.gradients:gradient",
        right='"P": (e @ params.Q) * share + (reg * w_u)[:, None] * params.P,',
        wrong='"P": (e @ params.Q) * share - (reg * w_u)[:, None] * params.P,',
        origin="The update θ ← θ + η(…) is written with r - r̂, and the penalty keeps the sign it had with r̂ - r.",
        caught_by=("loops", "complex step", "along a line", "worked example", "exact minimiser"),
    ),
    Fault(
        name="sequential-update",
        function="mf_numpy.gradients:gradient",
        right='"Q": (e.T @ params.P) * share + (reg * w_i)[:, None] * params.Q,',
        wrong='"Q": (e.T @ (params.P - config.lr * (e @ params.Q) * share)) * share + (reg * w_i)[:, None] * params.Q,',
        origin="google-research mf_simple: the user row is a NumPy view, so the item's gradient sees it moved.",
        caught_by=("loops", "complex step", "gauge identity", "worked example", "exact minimiser"),
    ),
    Fault(
        name="lost-duplicates",
        function="mf_numpy.gradients:gradient",
        right='grads["b"] = e.sum(axis=1) * share + reg * w_u * params.b',
        wrong='grads["b"] = reg * w_u * params.b\n'
        'grads["b"][batch.users] += share * losses.residual(predicted, batch.values, config)',
        origin="b[u] += g with an array of users keeps only the last of each user's ratings: NumPy buffers the sum.",
        caught_by=("loops", "complex step", "worked example", "exact minimiser", "order of ratings"),
    ),
    Fault(
        name="last-duplicate-wins",
        function="mf_numpy.gradients:gradient",
        right="e = batch.sparse(losses.residual(predicted, batch.values, config))",
        wrong="e = np.zeros(batch.shape)\n"
        "e[batch.users, batch.items] = losses.residual(predicted, batch.values, config)",
        origin="E is filled as a dense matrix by assignment, so that of a pair rated twice one rating remains.",
        caught_by=("loops", "complex step", "every rating twice", "worked example", "along a line"),
    ),
    Fault(
        name="transposed-residual",
        function="mf_numpy.gradients:gradient",
        right='"P": (e @ params.Q) * share + (reg * w_u)[:, None] * params.P,',
        wrong='"P": (e.T @ params.Q) * share + (reg * w_u)[:, None] * params.P,',
        origin="Which of the two gradients has Eᵀ is mixed up; NumPy notices only where m and n differ.",
        caught_by=("loops", "complex step", "renamed ids", "worked example"),
    ),
    Fault(
        name="sum-for-mean",
        function="mf_numpy.gradients:gradient",
        right="share = 1 / len(batch)",
        wrong="share = 1.0",
        origin="The data term is summed and the penalty is not, so λ means something else for every size of table.",
        caught_by=("loops", "every rating twice", "along a line", "worked example", "exact minimiser"),
    ),
    Fault(
        name="mean-over-cells",
        function="mf_numpy.gradients:gradient",
        right="share = 1 / len(batch)",
        wrong="share = 1 / (batch.shape[0] * batch.shape[1])",
        origin="mean() of a masked m × n matrix divides by all its cells, not by the N that were rated.",
        caught_by=("loops", "grown tables", "every rating twice", "along a line", "worked example"),
    ),
    Fault(
        name="unrated-as-zeros",
        function="mf_numpy.gradients:gradient",
        right="e = batch.sparse(losses.residual(predicted, batch.values, config))",
        wrong="e = 2 * (params.mu + params.P @ params.Q.T - batch.sparse(batch.values).toarray())",
        origin="A pivot table filled with zeros turns every unrated cell into a rating of 0.",
        caught_by=("loops", "complex step", "along a line", "worked example", "grown tables"),
    ),
    Fault(
        name="clipped-predictions",
        function="mf_numpy.gradients:gradient",
        right="predicted = predict(params, batch.users, batch.items)",
        wrong="predicted = np.clip(predict(params, batch.users, batch.items), 1, 10)",
        origin="Clipping to the rating scale belongs to the score; in the gradient it hides the errors past the ends.",
        caught_by=("loops", "complex step", "central difference", "exact minimiser"),
    ),
    Fault(
        name="shares-for-total",
        function="mf_numpy.objective:penalty_weights",
        right="return np.ones(m, batch.values.dtype), np.ones(n, batch.values.dtype)",
        wrong="return batch.user_counts / len(batch), batch.item_counts / len(batch)",
        origin="ALS-WR's penalty is taken for the one that weight_decay is: public code differs silently on it.",
        caught_by=("loops", "complex step", "worked example", "exact minimiser"),
    ),
    Fault(
        name="counts-for-shares",
        function="mf_numpy.objective:penalty_weights",
        right="w_u, w_i = batch.user_counts * share, batch.item_counts * share",
        wrong="w_u, w_i = batch.user_counts, batch.item_counts",
        origin="ALS-WR weighs by n_u beside a sum of squares; beside a mean the weight must be n_u/N.",
        caught_by=("loops", "complex step", "every rating twice", "worked example", "exact minimiser"),
    ),
    Fault(
        name="norms-not-squared",
        function="mf_numpy.objective:penalty",
        right="norms = total((params.P**2).sum(axis=1) * w_u) + total((params.Q**2).sum(axis=1) * w_i)",
        wrong="norms = total((params.P**2).sum(axis=1) ** 0.5 * w_u) + total((params.Q**2).sum(axis=1) ** 0.5 * w_i)",
        origin="LensKit's FlexMF squares the biases in its penalty and not the norms of the factors.",
        caught_by=("loops", "complex step", "along a line", "worked example", "first-order decrease"),
    ),
    Fault(
        name="biases-unpenalised",
        function="mf_numpy.gradients:gradient",
        right='grads["c"] = e.sum(axis=0) * share + reg * w_i * params.c',
        wrong='grads["c"] = e.sum(axis=0) * share',
        origin="Other models leave their biases out of the penalty; here Eq. 2 has them in it.",
        caught_by=("loops", "complex step", "along a line", "worked example", "exact minimiser"),
    ),
    Fault(
        name="mean-in-the-penalty",
        function="mf_numpy.gradients:gradient",
        right='grads["b"] = e.sum(axis=1) * share + reg * w_u * params.b',
        wrong='grads["b"] = e.sum(axis=1) * share + reg * w_u * (params.mu + params.b)',
        origin="μ is folded into the user's bias, and the penalty then pulls everybody to 0 instead of to the mean.",
        caught_by=("loops", "complex step", "along a line", "worked example", "exact minimiser"),
    ),
    Fault(
        name="float32-loss",
        function="mf_numpy.objective:total",
        right="out: float | complex = values.sum(dtype=wide).item()",
        wrong="out: float | complex = values.sum().item()",
        origin="A sum keeps the precision of its terms unless told otherwise: 24 bits for millions of float32 ratings.",
        caught_by=("exact sums", "pooled epoch"),
    ),
    Fault(
        name="lost-simd-lane",
        function="mf_numpy.kernels:_rows_kernel",
        right="for f in range(K):\n    error += p[f] * q[f]",
        wrong="for f in range(K - K % 2):\n    error += p[f] * q[f]",
        origin="LIBMF's default SSE build loses lanes of its sums; a loop by twos without its remainder does the same.",
        caught_by=("loops", "complex step", "worked example", "batch average", "exact minimiser"),
    ),
    Fault(
        name="off-by-one-indptr",
        function="mf_numpy.kernels:_rows_kernel",
        right="for k in range(indptr[u], indptr[u + 1]):",
        wrong="for k in range(indptr[u], indptr[u + 1] - 1):",
        origin="The end of a row is taken for its last rating, as in languages whose ranges include their end.",
        caught_by=("loops", "complex step", "every rating twice", "worked example", "exact minimiser"),
    ),
    Fault(
        name="last-chunk-dropped",
        function="mf_numpy.kernels:workspace",
        right="bounds[-1] = m",
        wrong="bounds[-1] = bounds[-2]",
        origin="Work is cut into chunks by whole division, and what is left over at the end goes to nobody.",
        caught_by=("loops", "complex step", "worked example", "batch average", "order of ratings"),
    ),
)

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
        right="moved, velocity = update(tensors, state.velocity, seen.gradient, lr, config)",
        wrong="scaled = {name: lr * g for name, g in seen.gradient.items()}\n"
        "moved, velocity = update(tensors, state.velocity, scaled, 1.0, config)",
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
        right="moved, velocity = update(tensors, state.velocity, seen.gradient, lr, config)",
        wrong="data = gradient(state.params, batch, replace(config, reg=0.0)).gradient\n"
        "moved, velocity = update(tensors, state.velocity, data, lr, config)\n"
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
        right="first = resume.state if resume else init(train, config)",
        wrong="first = resume.state if resume else init(train, config)\n"
        "if valid is not None and not resume:\n"
        "    mean = float(np.concatenate([train.values, valid.values]).mean())\n"
        "    first = replace(first, params=replace(first.params, mu=mean))",
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
        function="mf_numpy.train:run",
        right="point = State(first.params.copy(), first.velocity and {k: v.copy() for k, v in first.velocity.items()}, "
        "first.epoch)",
        wrong="point = State(first.params.copy(), None, first.epoch)",
        origin="A checkpoint that holds the parameters and not the optimiser's state starts again from rest.",
        caught_by=("resumed run", "velocity at rest"),
    ),
)

_RATINGS = (
    Fault(
        name="values-in-file-order",
        function="mf_numpy.batch:full_batch",
        right="values = train.values[view.order].astype(config.numpy_dtype)",
        wrong="values = train.values.astype(config.numpy_dtype)",
        origin="Users and items are sorted and the ratings beside them are not.",
        caught_by=("order of ratings", "exact minimiser", "worked example", "dense table", "pooled epoch"),
    ),
    Fault(
        name="wrong-sort-key",
        function="mf_numpy.ratings:compress",
        right='order = np.argsort(rows, kind="stable").astype(np.int64, copy=False)',
        wrong='order = np.argsort(others, kind="stable").astype(np.int64, copy=False)',
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

FAULTS = {fault.name: fault for fault in (*_GRADIENT, *_UPDATES, *_EPOCHS, *_RATINGS)}
"""By name."""
