"""`check_module` on modules that are wrong: where it says so, and what mistake it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mf_numpy import Config
from mf_torch import check_module
from tests.test_module_check import l2, sgd
from tests.user_modules import (
    Biased,
    Column,
    Dot,
    EmbeddingDotBias,
    K,
    M,
    Matrices,
    N,
    Overwriting,
    PairsOnce,
    Perceptron,
    table,
)

R = table()
Terms = Callable[[Biased, Tensor, Tensor], Tensor]


def biased(forward: Terms, **users: Any) -> nn.Module:
    """The usual module with another forward."""

    class Changed(Biased):
        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            return forward(self, users, items)

    return Changed(**users)


def changed(combine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """The usual module with the terms μ, b, c and p·q put together in another way."""
    return lambda: biased(lambda module, u, i: combine(*module.terms(u, i)))


def factors(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """Two embeddings whose rows are put together in another way."""

    class Changed(Dot):
        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            return combine(self.user_factors(users), self.item_factors(items))

    return Changed


PREDICTIONS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "swapped": (lambda: biased(lambda m, u, i: Biased.forward(m, i, u)), {}, "users and items are swapped"),
    "no user bias": (changed(lambda mu, b, c, d: mu + c + d), {}, "the user bias b is left out"),
    "no item bias, twice b": (
        changed(lambda mu, b, c, d: mu + 2 * b + d),
        {},
        "the user bias b is added twice; the item bias c is left out",
    ),
    "minus c": (changed(lambda mu, b, c, d: mu + b - c + d), {}, "the item bias c is subtracted"),
    "thrice c": (changed(lambda mu, b, c, d: mu + b + 3 * c + d), {}, "the item bias c is 3 times"),
    "no μ": (changed(lambda mu, b, c, d: b + c + d), {}, "μ is left out"),
    "no product": (changed(lambda mu, b, c, d: mu + b + c), {}, "p·q is left out"),
    "minus product": (changed(lambda mu, b, c, d: mu + b + c - d), {}, "p·q is subtracted"),
    "mean of factors": (factors(lambda p, q: (p * q).mean(1)), {}, "p·q is a mean over the factors; Eq. 1 sums them"),
    "√K": (factors(lambda p, q: (p * q).sum(1) / K**0.5), {}, "p·q is divided by √K"),
    "twice": (factors(lambda p, q: 2 * (p * q).sum(1)), {}, "p·q is 2 times the hand-written one"),
    "bias of the other id": (
        lambda: biased(lambda m, u, i: sum(m.terms(u, i)[k] for k in (0, 1, 3)) + m.item_bias(u % N).squeeze(1)),
        {},
        "the item bias c is left out; c is looked up by user",
    ),
    "a constant": (Matrices, {}, "every prediction is +3.5 beside Eq. 1: pass mu=3.5"),
    "another constant": (Matrices, {"mu": 3.0}, "every prediction is +0.5 beside Eq. 1: pass mu=3.5"),
    "μ forgotten": (lambda: Matrices(0.0), {"mu": 3.5}, "μ = 3.5 is left out"),
    "a factor lost": (factors(lambda p, q: (p * q)[:, :-1].sum(1)), {}, f"of {K} factors those at [{K - 1}] take no"),
    "weighted factors": (
        factors(lambda p, q: (p * q) @ torch.arange(1.0, K + 1, dtype=p.dtype)),
        {},
        "the factors have weights",
    ),
    "cosine": (factors(F.cosine_similarity), {}, "another model: the cosine of p and q stands for p·q"),
    "distance": (factors(lambda p, q: -((p - q) ** 2).sum(1)), {}, "another model: |p - q|² stands for p·q"),
    "a sigmoid range": (
        lambda: EmbeddingDotBias(K, M, N, (0, 5.5)),
        {},
        "another model: Eq. 1 goes through a sigmoid onto the range 0 to 5.5",
    ),
    "tanh": (factors(lambda p, q: 3 + 2 * torch.tanh((p * q).sum(1))), {}, "through tanh"),
    "exp": (factors(lambda p, q: (p * q).sum(1).exp()), {}, "through exp"),
    "clamped": (
        changed(lambda mu, b, c, d: (mu + b + c + d).clamp(1, 5)),
        {},
        "clamped to at least 1 and at most 5; clamp them after training",
    ),
    "relu": (factors(lambda p, q: F.relu((p * q).sum(1))), {}, "clamped to at least 0;"),
    "a cube": (factors(lambda p, q: (p * q).sum(1) ** 3), {}, "an increasing or decreasing function of Eq. 1"),
    "a square": (factors(lambda p, q: (p * q).sum(1) ** 2), {}, "no sum of μ, b, c and p·q, nor a function of Eq. 1"),
    "float32": (
        factors(lambda p, q: (p.float() * q.float()).sum(1).double()),
        {},
        "Eq. 1 to the digits of float32",
    ),
    "bfloat16": (factors(lambda p, q: (p.bfloat16() * q.bfloat16()).sum(1).double()), {}, "the digits of half"),
    "max_norm": (lambda: Dot(max_norm=1.0), {}, "max_norm = 1 shrinks the rows it looks up in 'user_factors.weight'"),
    "over the batch": (factors(lambda p, q: (p * q).sum(1) - (p * q).sum(1).mean()), {}, "depends on the pairs beside"),
    "a network": (
        Perceptron,
        {},
        "'layers.0.weight', 'layers.0.bias', 'layers.2.weight', which no symbol of Eq. 1 is, take part",
    ),
    "a role denied": (
        Biased,
        {"names": {"b": None}},
        "another model: no sum of μ, b, c and p·q, nor a function of Eq. 1; 'user_bias.weight', which no symbol of "
        "Eq. 1 is, takes part",
    ),
    "no numbers": (factors(lambda p, q: (p * q).sum(1).sqrt()), {}, "some predictions are no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_what_is_wrong_with_predictions(kind: str) -> None:
    make, settings, said = PREDICTIONS[kind]
    report = check_module(make(), R, **settings)
    (row,) = report.rows
    assert not row.ok and row.quantity == "r̂"
    assert said in row.hint, row.hint
    assert f"HINT r̂: {row.hint}" in str(report)


def test_what_shows_in_a_batch_of_one_alone() -> None:
    """squeeze() without a dimension is right until the last batch of an epoch has one pair."""

    class Summed(Dot):
        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            p, q = self.user_factors(users).squeeze(), self.item_factors(items).squeeze()
            out: Tensor = (p * q).sum(dim=-1) if len(users) > 1 else (p * q)[0]
            return out

    assert "depends on the pairs beside it" in check_module(Summed(), R)["r̂"].hint


def test_what_shows_for_some_pairs_alone() -> None:
    def forward(module: Biased, users: Tensor, items: Tensor) -> Tensor:
        return Biased.forward(module, users.clamp(max=N + 2), items)

    report = check_module(biased(forward), R)
    assert "right for made-up pairs, wrong for some of the given ones" in report["r̂"].hint


def mse(out: Tensor, r: Tensor) -> Tensor:
    return ((out - r) ** 2).mean()


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "half": (lambda out, r: mse(out, r) / 2, "the factor 2 is missing: it is ½(r̂ - r)²"),
    "twice": (lambda out, r: 2 * mse(out, r), "twice the loss"),
    "sum": (nn.MSELoss(reduction="sum"), "a sum over the pairs where Eq. 2 has their mean: reduction='sum'"),
    "half the sum": (lambda out, r: ((out - r) ** 2).sum() / 2, "half the sum"),
    "mean of a mean": (lambda out, r: mse(out, r) / len(r), "divided by the number of pairs twice"),
    "uphill": (lambda out, r: -mse(out, r), "the sign is turned round"),
    "RMSE": (lambda out, r: mse(out, r).sqrt(), "the RMSE is minimised"),
    "some factor": (lambda out, r: 0.3 * mse(out, r), "E is 0.3 times the hand-written one"),
    "detached": (lambda out, r: mse(out.detach(), r) + 0 * out.sum(), "no gradient of the loss reaches"),
    "centred": (lambda out, r: mse(out, r - r.mean()), "one of the two is shifted, by the mean rating"),
    "shifted": (lambda out, r: mse(out, r + 1), "the loss compares r̂ with r +1: one"),
    "scaled": (lambda out, r: mse(out, r / 5), "the loss compares r̂ with 0.2 r"),
    "absolute": (nn.L1Loss(), "the absolute error"),
    "Huber": (nn.HuberLoss(delta=0.7), "Huber's, a square up to errors of 0.7"),
    "pseudo-Huber": (lambda out, r: (1 + ((out - r) / 2) ** 2).sqrt().mean() * 8, "pseudo-Huber with δ = 2"),
    "float32": (lambda out, r: mse(out.float(), r.float()).double(), "right to the digits of float32"),
    "fourth power": (lambda out, r: ((out - r) ** 4).mean(), "another loss: its derivative is no multiple"),
    "no number": (lambda out, r: (out - out).sqrt().sum() + mse(out, r), "no derivative that is a number"),
}


@pytest.mark.parametrize("as_objective", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_what_is_wrong_with_a_loss(kind: str, as_objective: bool) -> None:
    loss, said = LOSSES[kind]
    if as_objective:
        report = check_module(Biased(), R, objective=lambda m, u, i, r: loss(m(u, i), r))
    else:
        report = check_module(Biased(), R, loss=loss)
    assert report["r̂"].ok and not report["E"].ok
    assert said in report["E"].hint, report["E"].hint
    if kind not in ("detached", "no number"):
        assert {report[f"∇{name}"].hint for name in "PQbcμ"} == {"follows from E"}


def test_a_column_against_a_row() -> None:
    with pytest.warns(UserWarning, match="target size"):
        report = check_module(Column(), R, objective=lambda m, u, i, r: F.mse_loss(m(u, i), r))
    assert "(B, 1) against (B,) broadcasts to (B, B)" in report["E"].hint
    assert report["J"].hint == "follows from E"


def test_a_loss_that_is_not_the_configured_one() -> None:
    config = Config(loss="pseudo_huber", loss_scale=1.5, reg=0)
    report = check_module(Biased(), R, loss=nn.MSELoss(), config=config)
    assert "the loss is no multiple" not in report["E"].hint and not report["E"].ok
    assert report["∇P"].hint == "follows from E"


GRADIENTS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "padding": (lambda: Dot(padding_idx=0), "∇P", "row 0 is the padding_idx of 'user_factors.weight'"),
    "by frequency": (lambda: Dot(scale_grad_by_freq=True), "∇P", "scale_grad_by_freq divides each row"),
    "detached": (factors(lambda p, q: (p.detach() * q).sum(1)), "∇P", "no gradient reaches 'user_factors.weight'"),
    "half detached": (
        factors(lambda p, q: (p * (q + q.detach())).sum(1) / 2),
        "∇Q",
        "half the gradient",
    ),
    "uphill": (factors(lambda p, q: (p * (2 * q.detach() - q)).sum(1)), "∇Q", "it is -1 times the hand-written one"),
    "overwritten": (Overwriting, "∇P", "rows differ"),
    "pairs once": (PairsOnce, "∇P", "of a pair rated more than once only the last rating counts"),
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_what_is_wrong_with_a_gradient(kind: str) -> None:
    make, quantity, said = GRADIENTS[kind]
    report = check_module(make(), R, loss=nn.MSELoss())
    assert report["r̂"].ok and report["E"].ok and report["J"].ok
    assert said in report[quantity].hint, report[quantity].hint
    other = {"∇P": "∇Q", "∇Q": "∇P"}[quantity]
    assert report[other].ok or kind == "pairs once"


def penalised(penalty: Callable[[Matrices, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The mean square and a penalty on P, once with gathered rows and once with the table."""

    def objective(module: Matrices, users: Tensor, items: Tensor, ratings: Tensor) -> Tensor:
        right = sum((t**2).sum() for t in (module.q, module.b, module.c))
        return mse(module(users, items), ratings) + 0.05 * right + penalty(module, users, items)

    return objective


PENALTIES: dict[str, tuple[Callable[[Matrices, Tensor, Tensor], Tensor], str]] = {
    "half": (lambda m, u, i: 0.025 * (m.p**2).sum(), "the factor 2 is missing: λ/2 |θ|², or weight_decay = λ"),
    "twice": (lambda m, u, i: 0.1 * (m.p**2).sum(), "twice too much: Eq. 2's gradient is 2λθ, so weight_decay = 2λ"),
    "none": (lambda m, u, i: 0 * m.p.sum(), "'p' is not penalised"),
    "detached": (lambda m, u, i: 0.05 * (m.p.detach() ** 2).sum(), "'p' is not penalised"),
    "norm": (lambda m, u, i: 0.05 * m.p.norm(), "the norm is penalised, not its square"),
    "mean": (lambda m, u, i: 0.05 * (m.p**2).mean(), "a mean over the numbers of the table"),
    "mean of rows": (lambda m, u, i: 0.05 * (m.p**2).sum(1).mean(), "a mean over the rows of the table"),
    "absolute": (lambda m, u, i: 0.05 * m.p.abs().sum(), "λ|θ| with λ = 0.05 is penalised"),
    "uphill": (lambda m, u, i: -0.05 * (m.p**2).sum(), "the sign is turned round"),
    "by rating": (lambda m, u, i: 0.05 * (m.p[u] ** 2).sum(1).mean(), "rows weigh n/N: penalty='per_rating'"),
    "sum over pairs": (
        lambda m, u, i: 0.05 * (m.p[u] ** 2).sum(),
        "rows weigh n/N: penalty='per_rating'; a sum over the pairs, where Eq. 2 has their mean",
    ),
    "mean of elements": (
        lambda m, u, i: 0.05 * (m.p[u] ** 2).mean(),
        "rows weigh n/N: penalty='per_rating'; a mean over the factors",
    ),
    "some λ": (lambda m, u, i: 0.07 * (m.p**2).sum(), "its pull is 1.4 times the hand-written one"),
    "a cube": (lambda m, u, i: 0.05 * (m.p**4).sum(), "it is no multiple of θ"),
}


@pytest.mark.parametrize("kind", PENALTIES)
def test_what_is_wrong_with_a_penalty(kind: str) -> None:
    penalty, said = PENALTIES[kind]
    report = check_module(Matrices(), R, mu=3.5, objective=penalised(penalty), reg=0.05)
    assert [row.quantity for row in report.rows if not row.ok and row.quantity != "J"] == ["penalty of P"]
    assert said in report["penalty of P"].hint, report["penalty of P"].hint


def test_a_penalty_that_weighs_rows_alike_where_they_should_not() -> None:
    report = check_module(Matrices(), R, mu=3.5, objective=l2(0.05), reg=0.05, penalty="per_rating")
    assert {report[f"penalty of {name}"].hint for name in "PQbc"} == {"rows weigh alike: penalty='total'"}


def test_a_penalty_that_nobody_asked_for() -> None:
    report = check_module(Matrices(), R, mu=3.5, objective=l2(0.05))
    assert report["penalty of P"].hint == "0.1 θ pulls at it: a penalty with λ = 0.05, where none belongs"
    by_rating = lambda m, u, i, r: mse(m(u, i), r) + 0.05 * (m.p[u] ** 2).sum(1).mean()  # noqa: E731
    report = check_module(Matrices(), R, mu=3.5, objective=by_rating)
    assert "a per_rating penalty with λ = 0.05 pulls at it" in report["penalty of P"].hint


def test_weight_decay_is_twice_lambda_and_spares_the_mean() -> None:
    report = check_module(Column(), R, loss=nn.MSELoss(), optimizer=sgd(lr=0.1, weight_decay=0.05), reg=0.05)
    assert "weight_decay = λ; the λ of Eq. 2 is weight_decay/2 = 0.025" in report["penalty of Q"].hint
    assert report["P after 10 steps"].hint == "follows from penalty of P"
    assert report["J"].ok and report["∇P"].ok
    report = check_module(Biased(), R, loss=nn.MSELoss(), optimizer=sgd(lr=0.1, weight_decay=0.1), reg=0.05)
    assert next(row.quantity for row in report.rows if not row.ok and row.tensor == "global_bias") == "penalty of μ"
    assert "Eq. 2 leaves μ alone: give it an optimiser group" in report["penalty of μ"].hint
    decoupled = lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1)  # noqa: E731
    report = check_module(Column(), R, loss=nn.MSELoss(), optimizer=decoupled, reg=0.05)
    assert "AdamW's weight_decay of 0.1 is no part of any gradient (Eq. 11)" in report["penalty of P"].hint


def test_a_J_that_is_wrong_with_a_gradient_that_is_right() -> None:
    report = check_module(Dot(), R, loss=lambda out, r: mse(out, r) + mse(out, r).detach())
    assert [row.quantity for row in report.rows if not row.ok] == ["J"]
    assert "2 times the hand-written J, with the same gradient" in report["J"].hint


STEPS: dict[str, tuple[dict[str, Any], Config, str]] = {
    "heavy ball for the average": (
        {"lr": 0.2, "momentum": 0.9},
        Config(reg=0, lr=0.2, momentum=0.9, momentum_form="ema"),
        "from step 2 on; it moves as momentum_form='heavy_ball' does (Eq. 12 to 14)",
    ),
    "Nesterov for the heavy ball": (
        {"lr": 0.2, "momentum": 0.9, "nesterov": True},
        Config(reg=0, lr=0.2, momentum=0.9, momentum_form="heavy_ball"),
        "from step 1 on; it moves as momentum_form='nesterov' does",
    ),
    "half the lr": (
        {"lr": 0.1, "momentum": 0.9},
        Config(reg=0, lr=0.2, momentum=0.9, momentum_form="heavy_ball"),
        "from step 1 on; it moves as momentum_form='heavy_ball' does",
    ),
}


@pytest.mark.parametrize("kind", STEPS)
def test_what_is_wrong_with_steps(kind: str) -> None:
    settings, config, said = STEPS[kind]
    report = check_module(Column(), R, loss=nn.MSELoss(), optimizer=sgd(**settings), config=config)
    assert all(row.ok for row in report.rows if "after" not in row.quantity)
    assert said in report["P after 10 steps"].hint, report["P after 10 steps"].hint


def test_an_optimiser_of_its_own_and_one_that_forgets() -> None:
    class Lazy(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    p.data -= group["lr"] * p.grad.sign()

    lazy = lambda m: Lazy(m.parameters(), lr=0.1)  # noqa: E731
    report = check_module(Dot(), R, loss=nn.MSELoss(), optimizer=lazy)
    assert "neither the average, nor the heavy ball" in report["P after 10 steps"].hint
    forgets = lambda m: torch.optim.SGD(m.user_factors.parameters(), lr=0.1)  # noqa: E731
    report = check_module(Dot(), R, loss=nn.MSELoss(), optimizer=forgets)
    assert report["Q after 10 steps"].hint == (
        "'item_factors.weight' is in no group of the optimiser, so it never moves"
    )
    assert report["P after 10 steps"].ok
    report = check_module(Dot(), R, loss=nn.MSELoss(), optimizer=sgd(lr=50))
    assert report.passed and "run away in step" in str(report) and "compare with a smaller lr" in str(report)
    report = check_module(Dot(), R, loss=nn.MSELoss(), optimizer=sgd(lr=1e9))
    assert not report["P after 0 steps"].ok
