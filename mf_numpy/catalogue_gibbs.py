"""Faults of draws from a posterior; a part of `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

GIBBS = (
    Fault(
        name="noise-through-l",
        function="mf_numpy.gibbs:row_draw",
        right="out: Array = np.linalg.solve(root.T, np.linalg.solve(root, pull) + noise)",
        wrong="out: Array = np.linalg.solve(root.T, np.linalg.solve(root, pull)) + root @ noise",
        origin="L makes normals of covariance LLᵀ; but LLᵀ is the precision here, and its inverse the covariance.",
        caught_by=("draws by inverses", "block by block", "joint distribution"),
    ),
    Fault(
        name="noise-through-the-inverse",
        function="mf_numpy.gibbs:row_draw",
        right="out: Array = np.linalg.solve(root.T, np.linalg.solve(root, pull) + noise)",
        wrong="out: Array = np.linalg.solve(root.T, np.linalg.solve(root, pull)) + np.linalg.solve(root, noise)",
        origin="L⁻¹ has covariance (LᵀL)⁻¹: the right size and the wrong turn, as long as two numbers are correlated.",
        caught_by=("draws by inverses", "draws in loops"),
    ),
    Fault(
        name="variance-for-precision",
        function="mf_numpy.gibbs:noise_precision",
        right="return noise.precision / (SHAPE * scale**2 + squared_error / 2)",
        wrong="return (SHAPE * scale**2 + squared_error / 2) / noise.precision",
        origin="Half of the books parametrise the normal by its variance, the other half by its precision.",
        caught_by=("draws by inverses", "joint distribution", "ranks of the truth"),
    ),
    Fault(
        name="squares-not-halved",
        function="mf_numpy.gibbs:noise_precision",
        right="return noise.precision / (SHAPE * scale**2 + squared_error / 2)",
        wrong="return noise.precision / (SHAPE * scale**2 + squared_error)",
        origin="The ½ of the normal's exponent is lost, as that of the loss often is; here it doubles a variance.",
        caught_by=("draws by inverses", "joint distribution"),
    ),
    Fault(
        name="shared-draw",
        function="mf_numpy.gibbs:_side_noise",
        right="return SideNoise(wishart, rng.standard_normal(width), rng.standard_normal((rows, width)))",
        wrong="shared = np.tile(rng.standard_normal(width), (rows, 1))\n"
        "return SideNoise(wishart, rng.standard_normal(width), shared)",
        origin="One vector of noise is drawn outside the loop over rows; each row's own distribution is still right.",
        caught_by=("standard draws", "block by block"),
    ),
    Fault(
        name="freedom-of-the-prior-alone",
        function="mf_numpy.gibbs:_side_noise",
        right="freedom = width + rows - np.arange(width)",
        wrong="freedom = width - np.arange(width)",
        origin="The Wishart's scale is updated by the rows and its degrees of freedom are not.",
        caught_by=("standard draws", "block by block"),
    ),
    Fault(
        name="stale-squares",
        function="mf_numpy.solvers.gibbs:GibbsEngine.step",
        right="alpha = gibbs.noise_precision(squared_error, state.scale, noise)",
        wrong="stale = squared_error if math.isnan(state.squared_error) else state.squared_error\n"
        "alpha = gibbs.noise_precision(stale, state.scale, noise)",
        origin="The errors are those that the last sweep measured on its way, before its own rows had moved.",
        caught_by=("draws by inverses", "resumed chain"),
    ),
    Fault(
        name="hyperprior-twice",
        function="mf_numpy.gibbs:prior_of",
        right="spread = np.diag(begin) + square - sure * np.outer(center, center)",
        wrong="spread = 2 * np.diag(begin) + square - sure * np.outer(center, center)",
        origin="The hyperprior is added where the sums begin and once more where they are used.",
        caught_by=("draws by inverses", "block by block"),
    ),
    Fault(
        name="scatter-about-zero",
        function="mf_numpy.gibbs:prior_of",
        right="spread = np.diag(begin) + square - sure * np.outer(center, center)",
        wrong="spread = np.diag(begin) + square",
        origin="Σ θθᵀ is taken for the scatter about the mean, which is what a mean of its own leaves.",
        caught_by=("draws by inverses", "block by block"),
    ),
    Fault(
        name="pull-without-precision",
        function="mf_numpy.gibbs:row_conditional",
        right="return precision, prior.precision @ prior.mean + alpha * (others.T @ left)",
        wrong="return precision, prior.mean + alpha * (others.T @ left)",
        origin="The prior's mean is added to the right-hand side as it is; in the completed square it stands with Λ.",
        caught_by=("draws by inverses", "block by block"),
    ),
    Fault(
        name="bias-noise-without-its-pivot",
        function="mf_numpy.kernels.als:rows_kernel",
        right="bias += noise_bias[row] / np.sqrt(pivot)",
        wrong="bias += noise_bias[row]",
        origin="The last coordinate is solved for apart from the others, and its noise stays that of a single rating.",
        caught_by=("draws in loops", "draws by inverses"),
    ),
    Fault(
        name="product-of-means",
        function="mf_numpy.posterior:Draws.mean",
        right="Q = np.concatenate([point.Q * point.Q.dtype.type(share) for point in self.points], axis=1)",
        wrong="P = np.mean([point.P for point in self.points], axis=0)\n"
        "Q = np.mean([point.Q for point in self.points], axis=0)",
        origin="Factors are averaged, and then multiplied: turned against each other, the draws' factors cancel.",
        caught_by=("mean of predictions", "score of a chain"),
    ),
    Fault(
        name="interval-without-noise",
        function="mf_numpy.uncertainty:_quantile",
        right="below = ndtr(root * (middle[:, None] - each)).mean(axis=1) < share",
        wrong="below = (each < middle[:, None]).mean(axis=1) < share",
        origin="The spread of the predictions is taken for that of the ratings, which have noise of their own.",
        caught_by=("ends of intervals", "ratings in intervals"),
    ),
    Fault(
        name="variance-within-alone",
        function="mf_numpy.uncertainty:_variances",
        right="return halves, within, (s - 1) / s * within + between",
        wrong="return halves, within, (s - 1) / s * within + between / s",
        origin="The variance between means is B / s in the paper, where B has the s already; here it is divided twice.",
        caught_by=("variances by hand", "chains apart"),
    ),
    Fault(
        name="chains-not-cut",
        function="mf_numpy.uncertainty:_variances",
        right="halves = np.concatenate([table[:, :, :s], table[:, :, -s:]], axis=1)",
        wrong="halves = np.concatenate([table, table], axis=1)",
        origin="Gelman and Rubin compared whole chains: two that rise together agree, wherever they go.",
        caught_by=("variances by hand", "chains apart"),
    ),
)
