"""One frozen configuration for every backend; invalid settings are refused when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from mf_numpy.errors import ConfigError, choose, nearest, number, whole

Model = Literal["plain", "biased"]
Penalty = Literal["total", "per_rating"]
MomentumForm = Literal["ema", "heavy_ball", "nesterov"]
Init = Literal["normal", "uniform", "truncated_normal", "mean"]
DType = Literal["float32", "float64"]
LossName = Literal["squared", "pseudo_huber", "logistic", "poisson", "ordinal", "all_pairs", "bpr", "softmax", "warp"]
DRAWN = ("bpr", "softmax", "warp")
"""Losses of lists, whose items but the first are drawn anew in every epoch."""
TRIES = 10
"""How many items are drawn for ``warp`` where nothing is said of it; with one alone no rank could be told."""
RANKING = ("all_pairs", *DRAWN)
"""Losses that tell what was chosen from what was not: their predictions are scores, and no RMSE says how good."""
Solver = Literal["gd", "sgd", "als", "cd", "lbfgs", "gibbs", "hmc"]
SAMPLERS = ("gibbs", "hmc")
"""Solvers that draw from the posterior instead of minimising Eq. 2."""
StepRule = Literal["momentum", "adam", "adagrad"]

SOLVER_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gd": {"n_epochs": 200, "lr": 50.0, "lr_decay": 1.0, "momentum": 0.9, "reg": 0.05},
    "sgd": {"n_epochs": 50, "lr": 0.01, "lr_decay": 0.95, "momentum": 0.0, "reg": 0.05},
    "als": {"n_epochs": 15, "lr": 1.0, "lr_decay": 1.0, "momentum": 0.0, "reg": 0.1},
    "cd": {"n_epochs": 15, "lr": 1.0, "lr_decay": 1.0, "momentum": 0.0, "reg": 0.1},
    "lbfgs": {"n_epochs": 100, "lr": 1.0, "lr_decay": 1.0, "momentum": 0.0, "reg": 0.1},
    "gibbs": {"n_epochs": 220, "lr": 1.0, "lr_decay": 1.0, "momentum": 0.0, "reg": 0.0},
    "hmc": {"n_epochs": 300, "lr": 0.1, "lr_decay": 1.0, "momentum": 0.0, "reg": 0.0},
}
"""What a setting is when it is not given, where that depends on the solver; a committed `defaults.json` says why.

A solver that comes close to the minimum of Eq. 2 wants more of a penalty than one that stops before.
"""

RULE_DEFAULTS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("gd", "adam"): {"lr": 0.01, "momentum": 0.0},
    ("gd", "adagrad"): {"lr": 0.03, "momentum": 0.0},
    ("sgd", "adagrad"): {"lr": 0.02, "lr_decay": 1.0},
}
"""Those of a solver with a step rule other than momentum, whose steps have about the length η; all there are."""

STEPS_OF_THEIR_OWN = ("als", "cd", "lbfgs", "gibbs")
"""Solvers that find how far to go by themselves: lr is 1, the whole step, and there is no momentum."""

_STEPS = (
    "n_epochs",
    "lr",
    "momentum",
    "momentum_form",
    "step_rule",
    "cg_steps",
    "inner_sweeps",
    "history_size",
    "leapfrog_steps",
    "burn_in",
    "thin",
    "chain_length",
    "average_from",
    "batch_size",
    "lr_decay",
    "lr_schedule",
    "tol",
)

_NOT_OF_DRAWS: Mapping[str, Any] = {"reg": 0.0, "penalty": "per_rating", "patience": None, "min_delta": 0.0, "tol": 0.0}
"""What says nothing to a sampler, which has no minimum to stop at, and draws the weight of its penalty."""


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is fitted and how. Each field's meaning is in its ``help`` metadata, which the CLI shows.

    Raises:
        ConfigError: a setting outside what is allowed.
    """

    model: Model = _setting("biased", "Eq. 1 with mean and biases, or the post's plain p·q")
    loss: LossName = _setting(
        "squared",
        "what a prediction costs: the squared error; less than that past loss_scale (pseudo_huber); for ratings of 0 "
        "and 1 (logistic), counts (poisson) and grades, of which the order alone counts (ordinal), what their "
        "probability says; for choices the squared error to 1, and to 0 of all that were not chosen (all_pairs), or "
        "that others score higher, pair by pair (bpr), in a list (softmax), or by the rank that draws tell (warp)",
    )
    loss_scale: float = _setting(
        1.0,
        "δ in rating units, where pseudo_huber turns from a square to a straight line; α of all_pairs, by how much a "
        "unit of rating makes a choice surer than what was not chosen",
    )
    n_negatives: int = _setting(
        None,
        "of bpr, softmax and warp: items drawn beside each rating, none of the user's own; by default 1, for warp, "
        "which takes the first that is less than 1 behind, 10",
    )
    negative_power: float = _setting(
        0.0, "of bpr and softmax: items are drawn by the power of their number of ratings; 0 all alike, 1 by popularity"
    )
    solver: Solver = _setting(
        "gd",
        "what minimises Eq. 2: the gradient of a batch (gd), a step for each rating (sgd), each row's minimiser in "
        "turn (als), each number's (cd), or quasi-Newton steps (lbfgs); gibbs draws from the posterior instead, row by "
        "row, and hmc along the gradient",
    )
    n_factors: int = _setting(32, "K, the length of each factor vector")
    n_epochs: int = _setting(
        None,
        "passes over the training ratings; by default 200, for sgd 50, for als and cd 15, for lbfgs 100, for gibbs "
        "220, for hmc 300",
    )
    lr: float = _setting(
        None,
        "η, the step along the velocity; by default 50 for gd, whose gradients are means over the batch (adam 0.01, "
        "adagrad 0.03), for sgd 0.01 (adagrad 0.02), for hmc 0.1, a step of a trajectory; the others find theirs",
    )
    reg: float = _setting(
        None,
        "λ, the weight of the squared norms in Eq. 2; by default 0.05, for als, cd and lbfgs 0.1; samplers draw theirs",
    )
    penalty: Penalty = _setting("per_rating", "weigh a row's norm by its share of the ratings, or every row by 1")
    momentum: float = _setting(None, "β in [0, 1); by default 0.9 for gd without another step rule, else 0")
    momentum_form: MomentumForm = _setting(
        "ema", "ema is the post's v ← βv + (1-β)g; heavy_ball and nesterov add g whole"
    )
    step_rule: StepRule = _setting(
        "momentum",
        "the velocity's steps, or each number's by the size of its own gradients: of late (adam, of gd; β₁ = 0.9, "
        "β₂ = 0.999), or of all so far (adagrad, of gd and sgd)",
    )
    cg_steps: int | None = _setting(
        None,
        "of als: conjugate-gradient steps for each row, from where it is; by default rows are solved exactly, by "
        "Cholesky",
    )
    inner_sweeps: int = _setting(1, "of cd: how often each factor's users and items are minimised in turn in an epoch")
    history_size: int = _setting(10, "of lbfgs: the number of steps it remembers; each costs two copies of all numbers")
    leapfrog_steps: int = _setting(10, "of hmc: steps of a trajectory, each with a gradient of all ratings")
    burn_in: int = _setting(20, "of gibbs and hmc: epochs of a chain before the mean over the draws begins")
    thin: int = _setting(1, "of gibbs and hmc: every how many of the draws one is kept for later predictions")
    chain_length: int | None = _setting(
        None,
        "of gibbs and hmc: epochs of a chain, after which the next one begins from a start of its own, and all of them "
        "are averaged; by default a single chain takes all epochs",
    )
    average_from: int | None = _setting(
        None,
        "not of gibbs and hmc: from this epoch on, what the fit returns is the mean of the parameters after each; by "
        "default those after the last",
    )
    batch_size: int | None = _setting(None, "ratings per update; all of them when not given")
    init: Init = _setting("normal", "distribution of the starting factors")
    init_scale: float | None = _setting(
        None, "σ, or the upper end of uniform; by default 0.1, for sgd 0.01, and 11/K for uniform"
    )
    dtype: DType = _setting("float32", "precision of parameters and gradients; losses add up in float64")
    seed: int = _setting(0, "seed of the start and of every permutation")
    lr_decay: float = _setting(None, "factor on lr after every epoch; by default 1, for sgd 0.95")
    lr_schedule: tuple[tuple[int, float], ...] = _setting(
        (), "(epoch, factor) pairs: from that epoch on, lr is lr·factor"
    )
    patience: int | None = _setting(None, "stop after this many epochs without a better validation RMSE; keep the best")
    min_delta: float = _setting(0.0, "smallest fall of the validation RMSE that counts as better")
    tol: float = _setting(0.0, "converged when the objective's relative change stays below this for 3 epochs")
    eval_every: int = _setting(1, "epochs between validation scores")

    def __post_init__(self) -> None:
        for name, allowed in (
            ("model", Model),
            ("penalty", Penalty),
            ("momentum_form", MomentumForm),
            ("init", Init),
            ("dtype", DType),
            ("loss", LossName),
            ("solver", Solver),
            ("step_rule", StepRule),
        ):
            choose(name, getattr(self, name), get_args(allowed))
        defaults = {**SOLVER_DEFAULTS[self.solver], **RULE_DEFAULTS.get((self.solver, self.step_rule), {})}
        defaults["n_negatives"] = TRIES if self.loss == "warp" else 1
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        whole("n_factors", self.n_factors, 1)
        whole("n_epochs", self.n_epochs, 0)
        whole("seed", self.seed, 0)
        whole("eval_every", self.eval_every, 1)
        whole("inner_sweeps", self.inner_sweeps, 1)
        whole("history_size", self.history_size, 1)
        whole("leapfrog_steps", self.leapfrog_steps, 1)
        whole("burn_in", self.burn_in, 0)
        whole("thin", self.thin, 1)
        whole("n_negatives", self.n_negatives, 1)
        for name in ("chain_length", "average_from", "batch_size", "cg_steps", "patience"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        number("lr", self.lr, above=0.0)
        number("loss_scale", self.loss_scale, above=0.0)
        number("negative_power", self.negative_power, least=0.0)
        number("reg", self.reg, least=0.0)
        number("momentum", self.momentum, least=0.0, below=1.0)
        number("lr_decay", self.lr_decay, above=0.0)
        number("min_delta", self.min_delta, least=0.0)
        number("tol", self.tol, least=0.0)
        if self.init_scale is not None:
            number("init_scale", self.init_scale, least=0.0)
        # NumPy scalars become plain numbers, so that a saved configuration reads back as it was.
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, f.name, value.item())
        if self.init == "mean" and self.loss not in ("squared", "pseudo_huber"):
            raise ConfigError(f"init is 'mean', but with loss {self.loss!r} r̂ is no rating; use init='normal'")
        if self.init == "mean" and self.model == "biased":
            raise ConfigError(
                "init is 'mean' with the biased model, which starts at the mean anyway; use init='normal'"
            )
        self._check_rule()
        if self.momentum_form == "nesterov" and self.momentum == 0:
            raise ConfigError("momentum_form is 'nesterov' with momentum 0; give a momentum above 0, such as 0.9")
        self._check_solver()
        self._check_loss()
        object.__setattr__(self, "lr_schedule", tuple((int(e), float(f)) for e, f in self.lr_schedule))
        for epoch, factor in self.lr_schedule:
            whole("an epoch of lr_schedule", epoch, 1)
            number("a factor of lr_schedule", factor, above=0.0)

    def _check_rule(self) -> None:
        rule = self.step_rule
        if rule == "momentum":
            return
        solvers = [solver for solver, other in RULE_DEFAULTS if other == rule]
        if self.solver not in solvers:
            ways = " or ".join(f"solver={solver!r}" for solver in solvers)
            raise ConfigError(f"step_rule is {rule!r} with solver {self.solver!r}; use {ways}")
        if self.momentum:
            raise ConfigError(f"step_rule is {rule!r} with momentum {self.momentum:g}; leave one of them out")
        if self.momentum_form != "ema":
            raise ConfigError(f"step_rule is {rule!r} with momentum_form {self.momentum_form!r}; leave one of them out")

    def _check_solver(self) -> None:
        solver = self.solver
        if solver != "gd" and self.batch_size is not None:
            raise ConfigError(f"batch_size is {self.batch_size} with solver {solver!r}; leave it out, or take 'gd'")
        if solver in STEPS_OF_THEIR_OWN:
            for name, value, only in (
                ("lr", self.lr, 1.0),
                ("lr_decay", self.lr_decay, 1.0),
                ("lr_schedule", tuple(self.lr_schedule), ()),
                ("momentum", self.momentum, 0.0),
            ):
                if value != only:
                    raise ConfigError(
                        f"{name} is {value!r} with solver {solver!r}, which finds its steps itself; leave it out, "
                        "or take 'gd' or 'sgd'"
                    )
        if solver == "hmc" and self.momentum:
            raise ConfigError(
                f"momentum is {self.momentum:g} with solver 'hmc', which draws its velocities anew; leave it out"
            )
        if solver in SAMPLERS:
            for name, only in _NOT_OF_DRAWS.items():
                value = getattr(self, name)
                if value != only:
                    raise ConfigError(
                        f"{name} is {value!r} with solver {solver!r}, which draws its priors and does not stop; leave "
                        "it out, or take 'als'"
                    )
        if (
            solver in ("als", "cd", *SAMPLERS)
            and self.loss != "squared"
            and (solver, self.loss) not in (("als", "all_pairs"), ("gibbs", "ordinal"))
        ):
            other = "gd" if self.loss in DRAWN else "lbfgs"
            also = {"als": " and 'all_pairs'", "gibbs": " and 'ordinal'"}.get(solver, "")
            raise ConfigError(
                f"loss is {self.loss!r} with solver {solver!r}, whose steps are for 'squared'{also} alone; use that, "
                f"or with solver={other!r}"
            )
        for name, given, default, owners in (
            ("cg_steps", self.cg_steps, None, ("als",)),
            ("inner_sweeps", self.inner_sweeps, 1, ("cd",)),
            ("history_size", self.history_size, 10, ("lbfgs",)),
            ("leapfrog_steps", self.leapfrog_steps, 10, ("hmc",)),
            ("burn_in", self.burn_in, 20, SAMPLERS),
            ("thin", self.thin, 1, SAMPLERS),
            ("chain_length", self.chain_length, None, SAMPLERS),
            ("average_from", self.average_from, None, [one for one in SOLVER_DEFAULTS if one not in SAMPLERS]),
        ):
            if given != default and solver not in owners:
                ways = " or ".join(map(repr, owners))
                raise ConfigError(f"{name} is {given} with solver {solver!r}; leave it out, or take {ways}")
        if self.chain_length is not None and self.chain_length < self.burn_in + self.thin:
            raise ConfigError(
                f"chain_length is {self.chain_length} with burn_in {self.burn_in} and thin {self.thin}, which leaves "
                f"no draw of a chain; take {self.burn_in + self.thin} or more, or lower the others"
            )

    def _check_loss(self) -> None:
        if self.loss == "all_pairs":
            if self.model != "plain":
                raise ConfigError(
                    f"model is {self.model!r} with loss 'all_pairs', which has no biases; use model='plain'"
                )
            if self.solver == "sgd" or self.batch_size is not None:
                came = "solver is 'sgd'" if self.solver == "sgd" else f"batch_size is {self.batch_size}"
                raise ConfigError(f"{came} with loss 'all_pairs', whose every step takes all pairs; use solver='als'")
            if self.cg_steps is not None:
                raise ConfigError(f"cg_steps is {self.cg_steps} with loss 'all_pairs'; leave it out")
        drawn = self.loss in DRAWN
        if drawn and self.solver != "gd":
            raise ConfigError(f"solver is {self.solver!r} with loss {self.loss!r}, which draws anew; use solver='gd'")
        for name, given, default in (
            ("n_negatives", self.n_negatives, 1),
            ("negative_power", self.negative_power, 0.0),
        ):
            if given != default and not drawn:
                raise ConfigError(f"{name} is {given} with loss {self.loss!r}; leave it out, or use loss='bpr'")
        if self.loss == "warp" and self.negative_power:
            raise ConfigError(
                f"negative_power is {self.negative_power:g} with loss 'warp', whose draws tell a rank where all items "
                "are alike; leave it out, or use loss='bpr'"
            )
        if self.patience is not None and self.loss in RANKING:
            raise ConfigError(
                f"patience is {self.patience} with loss {self.loss!r}, which has no RMSE to watch; leave it out"
            )

    def with_solver(self, solver: Solver, step_rule: StepRule = "momentum") -> Config:
        """The same model, objective and start with another solver or step rule, at the defaults of the two."""
        dropped = {"solver", *_STEPS}
        if {solver, self.solver} & set(SAMPLERS):
            dropped |= _NOT_OF_DRAWS.keys()
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in dropped}
        return Config(**kept, solver=solver, step_rule=step_rule)

    @property
    def start_scale(self) -> float:
        """σ of the factors' start in √rating units, or the upper end of uniform ones."""
        return _usual_scale(self) if self.init_scale is None else self.init_scale

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of parameters and gradients."""
        return np.dtype(self.dtype)

    def lr_at(self, epoch: int) -> float:
        """η in epoch 1, 2, ...: ``lr · lr_decay**(epoch-1)``, times the last factor of the schedule reached."""
        factor = 1.0
        for start, value in sorted(self.lr_schedule):
            if epoch >= start:
                factor = value
        return self.lr * self.lr_decay ** (epoch - 1) * factor

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as saved files and results hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: a name that is no setting, with the nearest one.
        """
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise ConfigError(f"{name!r} is no setting.{nearest(name, names)}")
        return cls(**values)


def _usual_scale(config: Config) -> float:
    if config.init == "uniform":
        return 11.0 / config.n_factors
    return 0.01 if config.solver == "sgd" else 0.1
