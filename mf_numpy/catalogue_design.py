"""Faults of users and items that are made of features, or come after training; a part of `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

DESIGN = (
    Fault(
        name="rows-pulled-too",
        function="mf_numpy.design:gradient",
        right="seen = gradients.gradient(rows(theta, design), batch, without_penalty(config))",
        wrong="seen = gradients.gradient(rows(theta, design), batch, config)",
        origin="The gradient of the rows is taken as it stands, with their pull in it, and features are pulled twice.",
        caught_by=("features in loops", "features by complex step", "features of identity", "features in step"),
    ),
    Fault(
        name="amounts-lost-on-the-way-back",
        function="mf_numpy.design:collect",
        right="return {name: (back[name].transposed @ g).astype(g.dtype) for name, g in of_rows.items()}",
        wrong="return {name: (back[name].has @ g).astype(g.dtype) for name, g in of_rows.items()}",
        origin="A row has its features or has not: true of ids and forgotten where a feature counts 1/√R, or 3.7.",
        caught_by=("features in loops", "features by complex step", "scaled feature"),
    ),
    Fault(
        name="rows-counted-for-ratings",
        function="mf_numpy.design:penalty_weights",
        right="n_f, n_g = design.users.has @ batch.user_counts, design.items.has @ batch.item_counts",
        wrong="n_f, n_g = design.users.has.sum(axis=1), design.items.has.sum(axis=1)",
        origin="A feature is priced by its rows; a stochastic step shrinks it at every rating of such a row.",
        caught_by=("features in loops", "price of features", "features of identity"),
    ),
    Fault(
        name="mean-for-root",
        function="mf_numpy.features:_even",
        right="out.data = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)",
        wrong="out.data = np.repeat(1 / np.maximum(counts, 1), counts)",
        origin="The rated items are averaged; SVD++ divides their sum by the root of their number.",
        caught_by=("SVD++ by hand", "length of rated"),
    ),
    Fault(
        name="item-features-from-users",
        function="mf_numpy.kernels.design:gradient_of_features",
        right='weight = weights[0] if name in ("P", "b") else weights[1]',
        wrong='weight = weights[0] if name in ("P", "c") else weights[1]',
        origin="Of four parameters two belong to a side, and one of them is put to the other.",
        caught_by=("features in loops", "features by complex step", "price of features"),
    ),
    Fault(
        name="bias-of-a-feature-whole",
        function="mf_numpy.kernels.design:product_kernel",
        right="other_b += data[k + np.uint64(1)] * bias[beside]",
        wrong="other_b += bias[beside]",
        origin="Factors are weighted by how much of the feature a row has, and its bias is added as it is.",
        caught_by=("features in loops", "features in step"),
    ),
    Fault(
        name="length-of-a-row-forgotten",
        function="mf_numpy.kernels.design_sgd:epoch_kernel",
        right="p = add(scale(p, keep), step * length, q)",
        wrong="p = add(scale(p, keep), step, q)",
        origin="The row is moved as if it were one feature: true of ids, and of rated items a half of the step.",
        caught_by=("walks in loops", "batches of one"),
    ),
    Fault(
        name="pulled-once-a-row",
        function="mf_numpy.kernels.design_sgd:epoch_kernel",
        right="store(W, a, add(scale(load(W, a, form), kept), x[k], moved))",
        wrong="store(W, a, add(scale(load(W, a, form), keep), x[k], moved))",
        origin="What is moved once a row is shrunk once a row, however many ratings the row has.",
        caught_by=("walks in loops", "batches of one", "mean step of features"),
    ),
    Fault(
        name="features-follow-the-moved-row",
        function="mf_numpy.kernels.design_sgd:epoch_kernel",
        right="store(Z, a, add(scale(load(Z, a, form), keep), step * y[k], p))",
        wrong="store(Z, a, add(scale(load(Z, a, form), keep), step * y[k], add(scale(p, keep), step * length, q)))",
        origin="The row is moved first and then read for the other side's features.",
        caught_by=("walks in loops", "batches of one"),
    ),
    Fault(
        name="drift-without-sign",
        function="mf_numpy.time_features:fit_drift",
        right="return np.sign(away) * np.abs(away) ** EXPONENT",
        wrong="return np.abs(away) ** EXPONENT",
        origin="How far from the mean day, before or after alike: a taste that comes and goes, and no drift.",
        caught_by=("time by hand", "drift about the mean", "time runs backwards"),
    ),
    Fault(
        name="mean-of-days-for-mean-of-ratings",
        function="mf_numpy.time_features:fit_drift",
        right="mean = total / np.maximum(np.bincount(at, moments.counts, len(index)), 1)",
        wrong="mean = np.bincount(at, moments.days, len(index)) / np.maximum(np.bincount(at, None, len(index)), 1)",
        origin="Days are averaged, and not ratings: one of the last day counts as much as a hundred of the first.",
        caught_by=("time by hand", "drift about the mean"),
    ),
    Fault(
        name="held-out-days-counted",
        function="mf_numpy.timed:timed",
        right="times = _times(train, (users or Features().id(), items or Features().id()), (user_info, item_info))",
        wrong="more = {name: np.append(getattr(train, name), getattr(valid, name)) "
        "for name in ('users', 'items', 'values', 'timestamps')}\n"
        "times = _times(replace(train, **more), (users or Features().id(), items or Features().id()), "
        "(user_info, item_info))",
        origin="When held-out pairs were rated is learned from them: a leak that flatters every score in time.",
        caught_by=("time by hand", "drift about the mean", "popularity adds up"),
    ),
    Fault(
        name="period-from-1970",
        function="mf_numpy.time_features:Moments.bins",
        right="parts: Array = np.clip((self.days - self.first) * n // (self.last - self.first + 1), 0, n - 1)",
        wrong="parts: Array = np.clip(self.days * n // (self.last + 1), 0, n - 1)",
        origin="Days are counted from 1970 and cut as they are: all of a data set falls into the last part or two.",
        caught_by=("time by hand", "time runs backwards"),
    ),
    Fault(
        name="newcomer-in-a-table-of-one",
        function="mf_numpy.fold_in:price",
        right='return config.reg * (n_ratings if config.penalty == "total" else n_own)',
        wrong="return config.reg * n_own",
        origin="Her row is fitted as if her ratings were all there are, and λ weighs as little as they are few.",
        caught_by=("newcomer at rest", "newcomer by ridge"),
    ),
    Fault(
        name="newcomer-half-pulled",
        function="mf_numpy.fold_in:minimiser",
        right="slope = others.T @ losses.residual(predicted, values, config, cuts) + 2 * ridge * delta",
        wrong="slope = others.T @ (predicted - values) + 2 * ridge * delta",
        origin="The residual of half the squared loss beside the pull of a whole penalty.",
        caught_by=("newcomer at rest", "newcomer by ridge"),
    ),
    Fault(
        name="rating-for-surprise",
        function="mf_numpy.fold_in:Newcomer.why",
        right="parts = tilde[self.rated] @ np.linalg.lstsq(self._normal, tilde[at])[0] * self.surprises",
        wrong="parts = tilde[self.rated] @ np.linalg.lstsq(self._normal, tilde[at])[0] * self.surprises.mean()",
        origin="What speaks for an item is read from similarities alone, however its neighbour was rated.",
        caught_by=("parts add up", "part of a surprise"),
    ),
)
