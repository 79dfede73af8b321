"""Faults of what is known of a newcomer, and of what to ask her; a part of `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

ASKING = (
    Fault(
        name="ratings-without-noise",
        function="mf_numpy.prior:Prior.covariance",
        right="inner = np.eye(self.root.shape[1]) + seen.T @ seen / self.variance",
        wrong="inner = np.eye(self.root.shape[1]) + seen.T @ seen",
        origin="Normal equations are written down for errors of variance 1, which ratings on a scale of ten have not.",
        caught_by=("posterior by Bayes", "penalty as prior", "fall of variance", "asked one by one"),
    ),
    Fault(
        name="rows-counted-once",
        function="mf_numpy.prior:prior_of",
        right="share = counts_of(result.catalogue, which) / len(result.catalogue.seen.indices)",
        wrong="share = np.full(len(rows), 1 / len(rows))",
        origin="A row with one rating, which the penalty holds at 0, says as much of what rows are like as any other.",
        caught_by=("posterior by Bayes", "spread of predictions"),
    ),
    Fault(
        name="answers-without-noise",
        function="mf_numpy.asking:falls",
        right="out: Array = ((moved @ gram) * moved).sum(axis=1) / (variance + spread)",
        wrong="out: Array = ((moved @ gram) * moved).sum(axis=1) / spread",
        origin="What varies most is asked for first, as if an answer were the truth; σ² is left out of the quotient.",
        caught_by=("fall of variance", "asked one by one"),
    ),
    Fault(
        name="answers-settle-nothing",
        function="mf_numpy.asking:settled",
        right="out: Array = covariance - np.outer(moved, moved) / (variance + other @ moved)",
        wrong="out: Array = covariance + np.outer(moved, moved) / (variance + other @ moved)",
        origin="Sherman and Morrison's formula is for A + xxᵀ; its inverse loses what A wins, and a sign is copied.",
        caught_by=("asked one by one", "posterior step by step"),
    ),
)
