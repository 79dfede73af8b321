"""`check_module` on modules that are right: it says so, finds the tensors, and leaves the module as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mf_numpy
from mf_numpy import Config, ConfigError, DataError, Ratings
from mf_torch import MatrixFactorization, check_module
from mf_torch.module_check import ModuleMismatchError
from tests.user_modules import Biased, Column, Dot, EmbeddingDotBias, K, M, Matrices, N, table

R = table()


def l2(reg: float, *, without: str = "global_bias") -> Callable[..., Tensor]:
    """The loop's objective: mean square and λ times all squares but μ's."""

    def objective(module: nn.Module, users: Tensor, items: Tensor, ratings: Tensor) -> Tensor:
        squares = [(p**2).sum() for name, p in module.named_parameters() if name != without]
        error: Tensor = module(users, items).view(-1) - ratings
        return (error**2).mean() + reg * torch.stack(squares).sum()

    return objective


def sgd(**settings: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda module: torch.optim.SGD(module.parameters(), **settings)


FACTORS = {"P": "user_factors.weight", "Q": "item_factors.weight"}
BIASES = {"b": "user_bias.weight", "c": "item_bias.weight"}
RIGHT: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, str]]] = {
    "dot": (Dot, {}, FACTORS),
    "biased": (Biased, {}, {**FACTORS, **BIASES, "mu": "global_bias"}),
    "fastai": (
        lambda: EmbeddingDotBias(K, M, N),
        {},
        {"P": "u_weight.weight", "Q": "i_weight.weight", "b": "u_bias.weight", "c": "i_bias.weight"},
    ),
    "(B, 1) and a buffer": (Column, {"loss": nn.MSELoss()}, {**FACTORS, **BIASES, "mu": "mean"}),
    "matrices": (Matrices, {"mu": 3.5}, {name: name.lower() for name in "PQbc"}),
    "bfloat16": (lambda: Biased().bfloat16(), {}, {**FACTORS, **BIASES, "mu": "global_bias"}),
    "sparse": (lambda: Dot(sparse=True), {"loss": nn.MSELoss(), "optimizer": sgd(lr=0.1)}, FACTORS),
    "ids from 1": (lambda: Dot(m=M + 1, n=N + 1), {"names": FACTORS}, FACTORS),
    "asked otherwise": (
        lambda: EmbeddingDotBias(K, M, N),
        {"call": lambda module, u, i: module(torch.stack([u, i], 1))[:, None]},
        {"P": "u_weight.weight", "Q": "i_weight.weight", "b": "u_bias.weight", "c": "i_bias.weight"},
    ),
    "compiled": (
        lambda: torch.compile(Dot(), backend="eager"),
        {"loss": nn.MSELoss()},
        {role: f"_orig_mod.{name}" for role, name in FACTORS.items()},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_module_passes(kind: str) -> None:
    make, settings, names = RIGHT[kind]
    report = check_module(make(), R, **settings)
    assert report.passed, str(report)
    assert bool(report)
    assert dict(report.names) == names
    report.raise_for_failure()
    trained = {f"∇{'μ' if role == 'mu' else role}" for role in names}
    assert {row.quantity for row in report.rows} >= {"r̂", *trained}
    assert str(report).endswith("all comparisons agree") and "HINT" not in str(report)


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({"lr": 0.2}, "gradient descent"),
        ({"lr": 0.2, "momentum": 0.9}, "heavy ball"),
        ({"lr": 0.2, "momentum": 0.9, "dampening": 0.9}, "average"),
        ({"lr": 0.2, "momentum": 0.9, "nesterov": True}, "nesterov"),
    ],
)
@pytest.mark.parametrize("by", ["objective", "weight_decay"])
def test_penalty_and_steps_of_a_training_loop(settings: dict[str, Any], form: str, by: str) -> None:
    module = Column()
    if by == "objective":
        report = check_module(module, R, objective=l2(0.03), optimizer=sgd(**settings), reg=0.03)
    else:
        decayed = sgd(**settings, weight_decay=0.06)
        report = check_module(module, R, loss=nn.MSELoss(), optimizer=decayed, reg=0.03)
    assert report.passed, str(report)
    compared = [row.quantity for row in report.rows if row.trained]
    assert compared == [
        "r̂", "J", "E", "∇P", "∇Q", "∇b", "∇c", *(f"penalty of {name}" for name in "PQbc"),
        *(f"{name} after 10 steps" for name in "PQbcμ"),
    ]  # fmt: skip


def test_a_penalty_by_rating_and_a_config() -> None:
    config = Config(reg=0.03, lr=0.2, momentum=0.8, momentum_form="ema", loss="pseudo_huber", loss_scale=1.5)

    def objective(module: Matrices, users: Tensor, items: Tensor, ratings: Tensor) -> Tensor:
        error = module(users, items) - ratings
        rows = (module.p[users] ** 2).sum(1) + (module.q[items] ** 2).sum(1)
        rows = rows + module.b[users] ** 2 + module.c[items] ** 2
        return (2 * 1.5**2 * (torch.sqrt(1 + (error / 1.5) ** 2) - 1)).mean() + 0.03 * rows.mean()

    steps = sgd(lr=0.2, momentum=0.8, dampening=0.8)
    report = check_module(Matrices(), R, mu=3.5, objective=objective, optimizer=steps, config=config)
    assert report.passed, str(report)


@pytest.mark.parametrize("decay", [0.0, 0.06])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_adam_is_the_hand_written_one(kind: Any, decay: float) -> None:
    # Adam's decay is a penalty in the gradient (Eq. 10), AdamW's is not (Eq. 11).
    reg = decay / 2 if kind is torch.optim.Adam else 0.0
    optimizer = lambda module: kind(module.parameters(), lr=0.05, betas=(0.8, 0.95), weight_decay=decay)  # noqa: E731
    report = check_module(Column(), R, loss=nn.MSELoss(), optimizer=optimizer, reg=reg)
    assert report.passed, str(report)
    assert report["P after 10 steps"].ok


def test_the_port_itself_passes() -> None:
    module = MatrixFactorization(mf_numpy.init(R, Config(n_factors=K)).params)
    report = check_module(module, R, loss=nn.MSELoss())
    assert report.passed, str(report)
    assert report["∇μ"].verdict == "not trained"


def test_a_trained_module_whose_gradient_has_cancelled_passes() -> None:
    # Fitted until its gradient is rounding: relative to that nobody has a digit.
    params = mf_numpy.fit(R, Config(solver="als", n_factors=K, n_epochs=400, reg=0.1, dtype="float64")).params
    module = MatrixFactorization(params)
    from mf_numpy.batch import full_batch
    from mf_torch.batch import to_device
    from mf_torch.objective import objective as ours

    config = Config(reg=0.1, dtype="float64")
    whole = to_device(full_batch(R, config), "cpu")
    objective = lambda mod, u, i, r: ours(mod, type(whole)(u, i, r, (M, N)), config).value  # noqa: E731
    report = check_module(module, R, objective=objective, reg=0.1, penalty="per_rating")
    assert report.passed, str(report)


def test_one_sided_frozen_and_tied() -> None:
    class UserBias(Dot):
        def __init__(self) -> None:
            super().__init__()
            self.user_bias = nn.Embedding(M, 1)

        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            out: Tensor = super().forward(users, items) + self.user_bias(users).view(-1)
            return out

    report = check_module(UserBias(), R)
    assert report.passed and set(report.names) == {"P", "Q", "b"}
    frozen = Biased()
    frozen.item_factors.weight.requires_grad_(False)
    report = check_module(frozen, R, loss=nn.MSELoss(), optimizer=sgd(lr=0.1, momentum=0.5))
    assert report.passed and report["∇Q"].verdict == "not trained", str(report)
    assert report["Q after 10 steps"].difference == 0 and "penalty of Q" not in [row.quantity for row in report.rows]

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = self.other = nn.Embedding(M, K)

        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            out: Tensor = (self.one(users) * self.other(items)).sum(1)
            return out

    names = {"P": "one.weight", "Q": "other.weight"}
    report = check_module(Tied(), R, names=names, loss=nn.MSELoss(), optimizer=sgd(lr=0.1))
    assert report.passed and report["∇P+Q"].tensor == "one.weight", str(report)
    assert "P+Q after 10 steps" in [row.quantity for row in report.rows]


def test_padding_that_no_rating_touches_is_no_fault() -> None:
    module = Dot(m=M + 1, n=N + 1, padding_idx=0)
    assert check_module(module, (R.users + 1, R.items + 1, R.values)).passed


def test_every_bit_of_the_module_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Biased().train()
    module.user_bias.eval()
    module(torch.tensor([1]), torch.tensor([2])).sum().backward()
    before = copy.deepcopy(module)
    grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    check_module(module, R, objective=l2(0.1), optimizer=sgd(lr=0.1), reg=0.1)
    check_module(module, R, loss=nn.L1Loss())
    assert torch.equal(torch.get_rng_state(), state)
    for (name, mine), theirs, grad in zip(module.named_parameters(), before.parameters(), grads, strict=True):
        assert mine.dtype == torch.float32 and mine.requires_grad and torch.equal(mine, theirs), name
        assert (grad is None) == (mine.grad is None) and (grad is None or torch.equal(grad, mine.grad))  # type: ignore[arg-type]
    assert module.training and not module.user_bias.training and not module._forward_hooks


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert check_module(Biased(), R, loss=nn.MSELoss()).passed


def test_ratings_in_other_forms_and_samples_of_many() -> None:
    for ratings in (
        (R.users, R.items, R.values),
        (torch.as_tensor(R.users), torch.as_tensor(R.items), torch.as_tensor(R.values)),
        [R.users.tolist(), R.items.tolist(), R.values.tolist()],
    ):
        assert check_module(Dot(), ratings).passed  # type: ignore[arg-type]
    report = check_module(Dot(), R, n_pairs=50)
    assert report.passed and "NOTE 50 of the 400 ratings were used" in str(report)
    assert check_module(Dot(), Ratings.of_indices([M - 1], [N - 1], [3.0])).passed


def test_hooks_that_a_copy_loses_are_told() -> None:
    module = Dot()
    module.user_factors.weight.register_hook(lambda grad: 2 * grad)  # type: ignore[no-untyped-call]
    assert "'user_factors.weight' has gradient hooks" in str(check_module(module, R))


def test_a_report_of_a_failure_can_be_asserted() -> None:
    report = check_module(Biased(), R, loss=nn.MSELoss(reduction="sum"))
    assert not report and not report.passed
    assert report["E"].verdict == "DIFFERS" and report["r̂"].ok
    assert repr(report) == "<ModuleReport of Biased: differs in J, E, ∇P, ∇Q, ∇b, ∇c, ∇μ>"
    with pytest.raises(ModuleMismatchError, match="HINT E: a sum over the pairs"):
        report.raise_for_failure()
    assert "∇P" in str(report) and "DIFFERS, follows from E" in str(report)
    assert str(report).count("HINT") == 1
    with pytest.raises(KeyError, match="'∇Z' was not compared, but r̂, J, E"):
        report["∇Z"]


class Dropping(Dot):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        out: Tensor = self.drop(super().forward(users, items))
        return out


def test_dropout_is_refused_in_training_mode_alone() -> None:
    with pytest.raises(ConfigError, match=r"two answers to the same question.*module\.eval\(\)"):
        check_module(Dropping().train(), R)
    assert check_module(Dropping().eval(), R).passed


SQUARE = Ratings.of_indices([0, 3], [3, 1], [1.0, 2.0], m=N, n=N)


@pytest.mark.parametrize(
    ("make", "ratings", "settings", "said"),
    [
        (Dot, R, {"names": {"P": "user_factor.weight"}}, "'user_factor.weight' for P, but the module has 'user"),
        (Dot, R, {"names": {"p": "user_factors.weight"}}, "a key of names is 'p'"),
        (Dot, R, {"names": {"P": None}}, "Eq. 1 has factors on both sides"),
        (lambda: Dot(m=N), SQUARE, {}, r"fit P and Q alike; pass names=\{'P': 'user_factors.weight', 'Q': 'item_"),
        (lambda: Dot(m=5, n=4), R, {}, "no tables of \\(at least 30, K\\) and \\(at least 20, K\\)"),
        (lambda: Dot(k=1), R, {}, "with one K > 1"),
        (lambda: Dot(m=5), R, {"names": FACTORS}, r"must be \(m, K\) with m of at least 30"),
        (Biased, R, {"names": {"b": "item_bias.weight"}}, r"b is 'item_bias.weight' of shape \(20, 1\), but must be"),
        (Biased, R, {"mu": 3.5, "names": {"mu": "global_bias"}}, "give one of them"),
        (lambda: nn.Bilinear(2, 2, 1), R, {}, "no tables"),
        (nn.ReLU, R, {}, "no floating-point parameters"),
        (lambda: Dot().requires_grad_(False), R, {}, "nothing is trained"),
        (Dot, R, {"loss": nn.MSELoss(), "objective": l2(0.1)}, "loss and objective are both given"),
        (Dot, R, {"reg": 0.1}, "pass objective=.* or optimizer="),
        (Dot, R, {"reg": 0.1, "config": Config()}, "config is given beside reg"),
        (Dot, R, {"reg": -1.0, "objective": l2(0.1)}, "reg is -1.0"),
        (Dot, R, {"penalty": "totl"}, "Did you mean 'total'"),
        (Dot, R, {"n_pairs": 0}, "n_pairs is 0"),
        (Dot, R, {"tolerance": 2.0}, "tolerance is 2.0"),
        (Dot, R, {"loss": nn.MSELoss(reduction="none")}, "loss gave shape .* one number for all pairs"),
        (Dot, R, {"objective": lambda *_: 3.0}, "objective gave a float"),
        (Dot, R, {"call": lambda m, u, i: m.user_factors(u)}, r"shape \(\d+, 4\) for .* pass call="),
        (Dot, R, {"call": lambda m, u, i: (m(u, i), 1)}, "the module gave a tuple"),
        (Dot, R, {"optimizer": lambda m: torch.optim.RMSprop(m.parameters())}, "SGD, Adam and AdamW have"),
        (Dot, R, {"optimizer": sgd(lr=1, momentum=0.9, dampening=0.1)}, "momentum 0.9 and dampening 0.1"),
        (Dot, R, {"optimizer": sgd(lr=1, maximize=True)}, "maximize"),
        (Dot, R, {"optimizer": lambda m: torch.optim.Adam(m.parameters(), amsgrad=True)}, "amsgrad"),
        (Dot, R, {"optimizer": lambda m: torch.optim.SGD(Dot().parameters(), lr=1)}, "not the checked copy's"),
        (
            Dot,
            R,
            {"config": Config(reg=0), "optimizer": lambda m: torch.optim.Adam(m.parameters())},
            "config has the steps of SGD",
        ),
        (lambda: Dot, R, {}, "an instance and not the class"),
        (lambda: Dot().to("meta"), R, {}, "'meta' and holds no numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_says_why(make: Any, ratings: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_module(make(), ratings, **settings)


@pytest.mark.parametrize(
    ("ratings", "said"),
    [
        (([], [], []), "users has dtype float64|there are no ratings"),
        (([0], [0]), r"tuple \(users, items, values\)"),
        (([0], [-1], [1.0]), "items\\[0\\] is -1"),
        (([0.5], [0], [1.0]), "integer indices"),
        (([[0]], [0], [1.0]), r"users has shape \(1, 1\)"),
        (([0, 1], [0], [1.0]), "lengths 2, 1 and 1"),
        (([0], [0], [float("nan")]), "finite"),
        (mf_numpy.random_split(R), "of a Split, its train"),
    ],
)
def test_ratings_that_are_none(ratings: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_module(Dot(), ratings)


def test_parameters_that_are_no_numbers() -> None:
    module = Dot()
    with torch.no_grad():
        module.user_factors.weight[3, 1] = torch.nan
    with pytest.raises(DataError, match=r"'user_factors\.weight' holds numbers that are not finite"):
        check_module(module, R)


def test_a_module_that_cannot_be_copied() -> None:
    module = Dot()
    module.cache = module.user_factors.weight * 2
    with pytest.raises(ConfigError, match=r"cannot be copied.*load the state dict"):
        check_module(module, R)


def test_an_error_of_the_module_says_when_it_was_raised() -> None:
    def fails(module: nn.Module, users: Tensor, items: Tensor) -> Tensor:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as caught:
        check_module(Dot(), R, call=fails)
    assert "when check_module asked it" in caught.value.__notes__[0]


@pytest.mark.parametrize("names", [{"b": "user_bias.weight"}, {"c": "item_bias.weight"}, {"b": None, "c": None}])
def test_columns_that_fit_both_sides_are_asked_for(names: dict[str, str | None]) -> None:
    square = Biased()
    square.user_factors, square.user_bias = nn.Embedding(N, K), nn.Embedding(N, 1)
    with pytest.raises(ConfigError, match=r"'item_bias.weight' \(20, 1\) may be b; pass names="):
        check_module(square, SQUARE, names=FACTORS)
    report = check_module(square, SQUARE, names=FACTORS | names)
    # What is said not to be a bias is drawn like any other parameter, and then it shows.
    assert report.passed == (None not in names.values())


@pytest.mark.cuda
def test_a_module_on_the_gpu() -> None:
    module = Biased().cuda()
    report = check_module(module, R, objective=l2(0.03), optimizer=sgd(lr=0.2, momentum=0.9), reg=0.03)
    assert report.passed, str(report)
    assert module.global_bias.is_cuda and module.global_bias.dtype == torch.float32

    class Swapped(Biased):
        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            return super().forward(items, users)

    report = check_module(Swapped().cuda(), R)
    assert "users and items are swapped" in report["r̂"].hint
    torch.cuda.synchronize()  # no index went past a table


def test_tolerance_is_that_of_predictions_and_gradients() -> None:
    single = lambda module, u, i: module(u, i).float().double()  # noqa: E731
    assert not check_module(Dot(), R, call=single)
    assert check_module(Dot(), R, call=single, tolerance=1e-6)


def test_large_tables_are_not_slow_to_draw_and_seeds_differ() -> None:
    one, two = (check_module(Dot(), R, seed=seed)["∇P"].difference for seed in (0, 1))
    assert one != two and np.isfinite([one, two]).all()
