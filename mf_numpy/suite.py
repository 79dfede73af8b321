"""All named checks, run one by one: a check that raises has rejected, and what it raised is kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numba
import numpy as np

from mf_numpy import (
    asking_checks,
    check,
    curvature_checks,
    design_checks,
    design_gibbs_checks,
    design_sgd_checks,
    gibbs_checks,
    hmc_checks,
    ordinal_checks,
    probit_chain_checks,
    probit_checks,
    properties,
    ranking_checks,
    rule_checks,
    safeguards,
    several_checks,
    sgd_checks,
    solution_checks,
    solver_checks,
    time_checks,
    uncertainty_checks,
)
from mf_numpy.catalogue import FAULTS
from mf_numpy.check import Check
from mf_numpy.faults import Fault
from mf_numpy.properties import WAYS, Ways

NamedCheck = Callable[[Ways], list[Check]]

CHECKS: Mapping[str, NamedCheck] = {
    "loops": properties.against_loops,
    "complex step": properties.by_complex_step,
    "central difference": properties.by_central_difference,
    "along a line": properties.along_a_line,
    "worked example": properties.worked_example,
    "exact minimiser": properties.exact_minimiser,
    "gauge identity": properties.gauge_identity,
    "every rating twice": properties.every_rating_twice,
    "batch average": properties.batch_average,
    "trajectories": properties.trajectories,
    "constant gradient": properties.constant_gradient,
    "unrolled velocity": properties.unrolled_velocity,
    "first-order decrease": properties.first_order_decrease,
    "velocity at rest": safeguards.velocity_at_rest,
    "derivatives of losses": curvature_checks.derivatives_of_losses,
    "means of losses": curvature_checks.means_of_losses,
    "residuals of the mean": curvature_checks.residuals_of_the_mean,
    "slope of the gradient": curvature_checks.slope_of_gradient,
    "bend of the objective": curvature_checks.bend_of_objective,
    "blocks of the Hessian": curvature_checks.blocks_of_hessian,
    "edge of stability": curvature_checks.edge_of_stability,
    "spectral radius": curvature_checks.spectral_radius,
    "Adam by hand": curvature_checks.adam_by_hand,
    "Adam's scale": curvature_checks.adam_scale,
    "even steps": rule_checks.even_steps,
    "unrolled moments": rule_checks.unrolled_moments,
    "moments at rest": rule_checks.moments_at_rest,
    "batches by hand": rule_checks.batches_by_hand,
    "gauge freedom": solution_checks.gauge_freedom,
    "gauge group": solution_checks.gauge_group,
    "nuclear norm": solution_checks.nuclear_norm,
    "cheapest factors": solution_checks.cheapest_factors,
    "imbalance in the gradient": solution_checks.imbalance_in_the_gradient,
    "balance at the end": solution_checks.balance_at_the_end,
    "ridge minimiser": solution_checks.ridge_minimiser,
    "mean of the start": solution_checks.mean_of_the_start,
    "range of the start": solution_checks.range_of_the_start,
    "steps in loops": sgd_checks.steps_in_loops,
    "one rating": sgd_checks.one_rating,
    "mean step": sgd_checks.mean_step,
    "fall over an epoch": sgd_checks.fall_over_an_epoch,
    "sweeps in loops": solver_checks.sweeps_in_loops,
    "slope after a sweep": solver_checks.slope_after_a_sweep,
    "at rest in the end": solver_checks.at_rest_in_the_end,
    "features in loops": design_checks.features_in_loops,
    "features by complex step": design_checks.features_by_complex_step,
    "features of identity": design_checks.features_of_identity,
    "scaled feature": design_checks.scaled_feature,
    "price of features": design_checks.price_of_features,
    "SVD++ by hand": design_checks.svdpp_by_hand,
    "length of rated": design_checks.length_of_rated,
    "features in step": design_checks.features_in_step,
    "walks in loops": design_sgd_checks.walks_in_loops,
    "batches of one": design_sgd_checks.batches_of_one,
    "mean step of features": design_sgd_checks.mean_step_of_features,
    "time by hand": time_checks.time_by_hand,
    "drift about the mean": time_checks.drift_about_the_mean,
    "time runs backwards": time_checks.time_runs_backwards,
    "popularity adds up": time_checks.popularity_adds_up,
    "newcomer at rest": design_checks.newcomer_at_rest,
    "newcomer by ridge": design_checks.newcomer_by_ridge,
    "parts add up": design_checks.parts_add_up,
    "part of a surprise": design_checks.part_of_a_surprise,
    "posterior by Bayes": asking_checks.posterior_by_bayes,
    "spread of predictions": asking_checks.spread_of_predictions,
    "penalty as prior": asking_checks.penalty_as_prior,
    "fall of variance": asking_checks.fall_of_variance,
    "asked one by one": asking_checks.asked_one_by_one,
    "posterior step by step": asking_checks.posterior_step_by_step,
    "draws in loops": gibbs_checks.draws_in_loops,
    "draws by inverses": gibbs_checks.draws_by_inverses,
    "resumed chain": gibbs_checks.resumed_chain,
    "standard draws": gibbs_checks.standard_draws,
    "block by block": gibbs_checks.block_by_block,
    "joint distribution": gibbs_checks.joint_distribution,
    "ranks of the truth": gibbs_checks.ranks_of_the_truth,
    "mean of predictions": gibbs_checks.mean_of_predictions,
    "score of a chain": gibbs_checks.score_of_a_chain,
    "chains walked one by one": several_checks.chains_walked_one_by_one,
    "starts of chains": several_checks.starts_of_chains,
    "mean over chains": several_checks.mean_over_chains,
    "fits side by side": several_checks.fits_side_by_side,
    "averaged iterates": several_checks.averaged_iterates,
    "error of averaged iterates": several_checks.error_of_averaged_iterates,
    "spread of averaged iterates": several_checks.spread_of_averaged_iterates,
    "features drawn in loops": design_gibbs_checks.features_drawn_in_loops,
    "features drawn from the joint normal": design_gibbs_checks.features_drawn_from_the_joint_normal,
    "draws of ids": design_gibbs_checks.draws_of_ids,
    "joint distribution of features": design_gibbs_checks.joint_distribution_of_features,
    "slope of the potential": hmc_checks.slope_of_the_potential,
    "trajectory by the book": hmc_checks.trajectory_by_the_book,
    "there and back": hmc_checks.there_and_back,
    "energy to second order": hmc_checks.energy_to_second_order,
    "a normal stays one": hmc_checks.a_normal_stays_one,
    "ends of intervals": uncertainty_checks.ends_of_intervals,
    "ratings in intervals": uncertainty_checks.ratings_in_intervals,
    "variances by hand": uncertainty_checks.variances_by_hand,
    "chains apart": uncertainty_checks.chains_apart,
    "lists in loops": ranking_checks.lists_in_loops,
    "lists by complex step": ranking_checks.lists_by_complex_step,
    "change of lists": ranking_checks.change_of_lists,
    "bend of lists": ranking_checks.bend_of_lists,
    "strangers alone": ranking_checks.strangers_alone,
    "frequency of draws": ranking_checks.frequency_of_draws,
    "price of draws": ranking_checks.price_of_draws,
    "first that is near": ranking_checks.first_that_is_near,
    "rank by draws": ranking_checks.rank_by_draws,
    "grades in loops": ordinal_checks.grades_in_loops,
    "grades by complex step": ordinal_checks.grades_by_complex_step,
    "derivatives of grades": ordinal_checks.derivatives_of_grades,
    "two grades": ordinal_checks.two_grades,
    "chances of grades": ordinal_checks.chances_of_grades,
    "grades at rest": ordinal_checks.grades_at_rest,
    "two ways to the start": ordinal_checks.two_ways_to_the_start,
    "bend of grades": ordinal_checks.bend_of_grades,
    "bend both ways": ordinal_checks.bend_both_ways,
    "graded steps": ordinal_checks.graded_steps,
    "settled cut points": ordinal_checks.settled_cut_points,
    "Newton by differences": ordinal_checks.newton_by_differences,
    "chances of normal grades": probit_checks.chances_of_normal_grades,
    "noise within its grade": probit_checks.noise_within_its_grade,
    "top of the cut points": probit_checks.top_of_the_cut_points,
    "cut points by quadrature": probit_chain_checks.cut_points_by_quadrature,
    "standard draws of grades": probit_chain_checks.standard_draws_of_grades,
    "grades drawn in loops": probit_checks.grades_drawn_in_loops,
    "grades drawn by the book": probit_checks.grades_drawn_by_the_book,
    "joint distribution of grades": probit_chain_checks.joint_distribution_of_grades,
    "noise and cut points anew": probit_chain_checks.noise_and_cut_points_anew,
    "noise of both sides": probit_checks.noise_of_both_sides,
    "grades over draws": probit_checks.grades_over_draws,
    "lists by graded draws": probit_checks.lists_by_graded_draws,
    "resumed run": safeguards.resumed_run,
    "pooled epoch": safeguards.pooled_epoch,
    "epoch of one batch": safeguards.epoch_of_one_batch,
    "exact sums": safeguards.exact_sums,
    "epochs": safeguards.epochs,
    "fair shuffle": safeguards.fair_shuffle,
    "training mean": safeguards.training_mean,
    "held-out values": safeguards.held_out_values,
    "two sides": safeguards.two_sides,
    "order of ratings": safeguards.order_of_ratings,
    "renamed ids": safeguards.renamed_ids,
    "grown tables": safeguards.grown_tables,
    "range of ids": safeguards.range_of_ids,
    "dense table": safeguards.dense_table,
    "id round trip": safeguards.id_round_trip,
    "repeated pairs": safeguards.repeated_pairs,
}
"""Checks that know the truth in different ways, by name."""


@dataclass(frozen=True)
class Verdict:
    """What one named check found.

    Attributes:
        name: of the check.
        about: what it knows, in a sentence.
        rows: what it compared.
        raised: the error that stopped it, such as ``ValueError: …``, or None.
    """

    name: str
    about: str
    rows: tuple[Check, ...]
    raised: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it ran to its end and every comparison agrees."""
        return self.raised is None and bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def worst(self) -> Check | None:
        """The comparison furthest past its tolerance, or nearest to it."""

        def past(row: Check) -> float:
            if math.isnan(row.difference):
                return math.inf
            if row.tolerance:
                return float(row.difference) / row.tolerance
            return math.inf if row.difference else 0.0

        return max(self.rows, key=past, default=None)


def judge(name: str, named: NamedCheck | None = None, ways: Ways = WAYS) -> Verdict:
    """Run one named check; nothing that it raises or warns of gets out.

    Numba gets one thread: its bits do not depend on their number, and on problems this small threads only wait.
    """
    named = named or CHECKS[name]
    about = (named.__doc__ or "").partition("\n")[0].strip()
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Verdict(name, about, tuple(named(ways)))
    except Exception as error:
        return Verdict(name, about, (), f"{type(error).__name__}: {error}")
    finally:
        numba.set_num_threads(threads)


@dataclass(frozen=True)
class Suite:
    """What the command ``check`` runs.

    Attributes:
        tables: the equality tables, by kind: ``gradient`` and ``trajectory``.
        ways: the implementations that the named checks judge.
        checks: the named checks.
        faults: what can be broken on purpose, by name.
    """

    tables: Mapping[str, Callable[[], list[Check]]] = field(
        default_factory=lambda: {"gradient": check.check_gradients, "trajectory": check.check_trajectories}
    )
    ways: Ways = field(default_factory=lambda: WAYS)
    checks: Mapping[str, NamedCheck] = field(default_factory=lambda: CHECKS)
    faults: Mapping[str, Fault] = field(default_factory=lambda: FAULTS)

    def equalities(self) -> list[Verdict]:
        """Run the equality tables."""
        return [judge(kind, _ignoring_ways(table)) for kind, table in self.tables.items()]

    def verdicts(self) -> list[Verdict]:
        """Run the named checks."""
        return [judge(name, named, self.ways) for name, named in self.checks.items()]


def _ignoring_ways(table: Callable[[], list[Check]]) -> NamedCheck:
    def run(ways: Ways) -> list[Check]:
        return table()

    return run
