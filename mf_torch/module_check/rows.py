"""The comparisons with the hand-written model, each standing on the one before it.

r̂ (Eq. 1), J (Eq. 2), E (Eq. 3), the gradient through the predictions (Eq. 4), the penalty's (Eq. 6), the steps
(Eq. 12 to 14).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from mf_numpy import losses
from mf_numpy.batch import Batch
from mf_numpy.check import TRAJECTORY_TOLERANCE
from mf_numpy.errors import ConfigError
from mf_numpy.model import Params, Tensors, predict
from mf_numpy.objective import penalty as penalty_by_hand
from mf_numpy.ratings import Array
from mf_torch.module_check import hints, steps
from mf_torch.module_check.case import (
    Case,
    absolute,
    by_role,
    decay_of,
    embeddings,
    is_kept,
    relative,
    sizes,
    table_of,
    terms,
    through,
)
from mf_torch.module_check.probe import Seen
from mf_torch.module_check.report import DRAWN, FOLLOWS, Row

_RUN_AWAY = 1e6
_DEPENDS_ON_BATCH = "the prediction of a pair depends on the pairs beside it (a normalisation over the batch?)"


def rows_at(case: Case, points: list[Tensors], where: str) -> list[Row]:
    """All comparisons but the steps' at the first of the points; the others help to find out what is wrong."""
    first = _prediction_row(case, points, where)
    if not first.ok:
        return [first]
    values = points[0]
    case.copy.write(values)
    seen, params = case.see(), case.roles.params(values)
    residual = _residual_rows(case, seen, params, where)
    rows = [first, *residual, *_data_rows(case, seen, params, values, where, all(row.ok for row in residual))]
    rows += _penalty_rows(case, seen, params, values, where)
    if case.judged:
        rows.insert(1, _objective_row(case, seen, params, rows, where))
    return rows


def _prediction_row(case: Case, points: list[Tensors], where: str) -> Row:
    """r̂ of made-up pairs, of some of them alone, and of the batch."""
    copy, (u, i) = case.copy, case.probe()
    copy.write(points[0])
    params = case.roles.params(points[0])
    mine = copy.predict(u, i)
    difference, hint = relative(mine, predict(params, u, i), terms(params, u, i)), ""
    ok = difference <= case.tolerance
    if not ok:
        hint = _prediction_hint(case, points, u, i, mine)
    else:
        for size in (1, len(u) // 2):
            alone = relative(copy.predict(u[:size], i[:size]), mine[:size], terms(params, u, i))
            if not alone <= case.tolerance:
                return Row("r̂", alone, case.tolerance, where, hint=_DEPENDS_ON_BATCH)
        users, items = case.batch.users, case.batch.items
        whole = relative(copy.predict(users, items), predict(params, users, items), terms(params, users, items))
        if not whole <= difference:
            difference = whole
        if not whole <= case.tolerance:
            hint = "right for made-up pairs, wrong for some of the given ones: it depends on more than the two ids"
    return Row("r̂", difference, case.tolerance, where, hint=hint)


def _prediction_hint(case: Case, points: list[Tensors], u: Array, i: Array, mine: Array) -> str:
    copy, half = case.copy, len(u) // 2
    now = copy.read()
    changed = [name for name in case.names if not np.array_equal(now[name], points[0][name])]
    if changed:
        limits = {name: e.max_norm for name, e in embeddings(copy, changed) if e.max_norm is not None}
        because = [f"max_norm = {limit:g} shrinks the rows it looks up in {name!r}" for name, limit in limits.items()]
        return "forward changes its own parameters: " + (" and ".join(because) or ", ".join(map(repr, changed)))
    alone = copy.predict(u[:half], i[:half])
    if np.abs(alone - mine[:half]).max() > hints.EXACT * np.abs(mine).max():
        return _DEPENDS_ON_BATCH
    answers = []
    for values in points:
        copy.write(values)
        answers.append((case.roles.params(values), u, i, copy.predict(u, i)))
    hint = hints.of_prediction(hints.Asked.of(answers, predict))
    copy.write(points[0])
    probe = Batch(u, i, np.zeros(len(u)), case.batch.shape)
    taking_part = copy.backward(probe.users, probe.items, probe.values, lambda out, _: out.sum(), None).reached
    extra = [repr(name) for name in copy.trained if name in taking_part and name not in case.names]
    return hint + (f"; {', '.join(extra)}, which no symbol of Eq. 1 is, {_take(extra)} part" if extra else "")


def _take(names: list[str]) -> str:
    return "takes" if len(names) == 1 else "take"


def _residual_rows(case: Case, seen: Seen, params: Params, where: str) -> list[Row]:
    if not case.judged or seen.residual is None:
        return []
    batch = case.batch
    predicted = predict(params, batch.users, batch.items)
    gold = losses.residual(predicted, batch.values, case.config)  # Eq. 3
    difference = relative(seen.residual, gold, sizes(params, batch))
    hint = "" if difference <= case.tolerance else hints.of_residual(seen.residual, gold, predicted, batch.values)
    return [Row("E", difference, case.tolerance, where, hint=hint)]


def _data_rows(case: Case, seen: Seen, params: Params, values: Tensors, where: str, residual_ok: bool) -> Iterable[Row]:
    """∂J/∂θ through the predictions (Eq. 4); of the whole J where the objective hides its predictions."""
    batch, roles = case.batch, case.roles
    whole = seen.data is None
    gold = roles.by_name(by_role(params, batch, case.config if whole else replace(case.config, reg=0.0)), values)
    scale = roles.by_name(through(absolute(params), batch, sizes(params, batch)), values)
    mine = seen.total if seen.data is None else seen.data
    decay = decay_of(case)
    for name in case.names:
        quantity = f"∇{roles.symbol(name)}"
        if name not in case.copy.trained:
            yield Row(quantity, float("nan"), case.tolerance, where, name, trained=False)
            continue
        g = mine[name] + (decay.get(name, 0.0) * values[name] if whole else 0.0)
        difference = relative(g, gold[name], scale[name])
        hint = ""
        if not difference <= case.tolerance:
            others = _known_mistakes(case, seen, params, residual_ok)
            alternatives = {words: roles.by_name(other, values)[name] for words, other in others.items()}
            table = table_of(case, name, values)
            hint = hints.of_data_gradient(g, gold[name], table, alternatives, name in seen.reached)
        yield Row(quantity, difference, case.tolerance, where, name, hint)


def _known_mistakes(case: Case, seen: Seen, params: Params, residual_ok: bool) -> dict[str, dict[str, Array]]:
    """The gradients by role that the module's own E makes, and those of duplicates that do not add up."""
    batch = case.batch
    e = losses.residual(predict(params, batch.users, batch.items), batch.values, case.config)
    out: dict[str, dict[str, Array]] = {}
    if seen.residual is not None and not residual_ok:
        out[f"{FOLLOWS} E"] = through(params, batch, seen.residual)
    for which, kept in (("first", 1), ("last", -1)):
        words = f"of a pair rated more than once only the {which} rating counts; gradients of duplicates add up (Eq. 7)"
        out[words] = through(params, batch, np.where(is_kept(batch, kept), e, 0.0))
    return out


def _penalty_rows(case: Case, seen: Seen, params: Params, values: Tensors, where: str) -> Iterable[Row]:
    """2λwθ (Eq. 6) beside what the objective adds to the gradient of the data, and the optimiser's weight decay."""
    if seen.data is None or (case.objective is None and case.optimizer is None):
        return
    batch, roles = case.batch, case.roles
    # With r = r̂ there is no E, and the hand-written gradient is the penalty's alone.
    at_truth = replace(batch, values=predict(params, batch.users, batch.items))
    gold = roles.by_name(by_role(params, at_truth, case.config), values)
    scale = roles.by_name(through(absolute(params), batch, sizes(params, batch)), values)
    decay, beside = decay_of(case), decay_of(case, decoupled=True)
    for name in case.names:
        if name not in case.copy.trained:
            continue
        mine = seen.total[name] - seen.data[name] + decay.get(name, 0.0) * values[name]
        difference = relative(mine, gold[name], scale[name] + np.abs(gold[name]))
        hint = ""
        if not difference <= case.tolerance:
            reg = 0.0 if roles.symbol(name) == "μ" else case.config.reg
            table = table_of(case, name, values)
            hint = hints.of_penalty(mine, table, reg, case.config.penalty, len(batch), beside.get(name, 0.0))
            if roles.symbol(name) == "μ":
                hint += "; Eq. 2 leaves μ alone: give it an optimiser group with weight_decay=0"
        yield Row(f"penalty of {roles.symbol(name)}", difference, case.tolerance, where, name, hint)


def _objective_row(case: Case, seen: Seen, params: Params, rows: list[Row], where: str) -> Row:
    """J, with the penalty where the objective has it, and without where weight decay stands for it."""
    batch, share = case.batch, 1 / len(case.batch)
    predicted = predict(params, batch.users, batch.items)
    gold = float(losses.value(predicted, batch.values, case.config).sum()) * share
    size = float((sizes(params, batch) ** 2).sum()) * share
    has = seen.data is None or not hints.nothing_left(seen.total, seen.data, hints.EXACT)
    by_decay = any(decay_of(case).values())
    if case.objective is not None and (has or not by_decay):
        gold += float(penalty_by_hand(params, batch, case.config))
        size += abs(float(penalty_by_hand(params, batch, case.config)))
    difference = relative(np.array(seen.value), np.array(gold), np.array(size))
    hint = ""
    if not difference <= case.tolerance:
        causes = [row.quantity for row in rows if not row.ok]
        ratio = seen.value / gold if gold else float("inf")
        hint = f"{FOLLOWS} {causes[0]}" if causes else f"{ratio:.6g} times the hand-written J, with the same gradient"
    return Row("J", difference, case.tolerance, where, hint=hint)


def step_rows(case: Case, values: Tensors, upstream: list[str]) -> list[Row]:
    """The parameters after each of some steps by the module's optimiser and by hand."""
    assert case.optimizer is not None
    copy, roles, batch = case.copy, case.roles, case.batch
    settings = steps.groups(copy, case.optimizer)
    forgotten = [name for name in case.names if name in copy.trained and name not in settings]
    rules = {
        name: _rule(case, group) for name, group in settings.items() if name in case.names and name in copy.trained
    }
    copy.write(values)
    mine = list(steps.by_torch(copy, case.optimizer, batch, case.loss, case.objective, case.n_steps))
    with np.errstate(over="ignore", invalid="ignore"):
        gold = list(steps.by_hand(roles, values, batch, case.config, rules, case.n_steps))
    large = _RUN_AWAY * max(float(np.abs(values[name]).max(initial=0.0)) for name in case.names)
    n_kept = sum(1 for _ in takewhile(lambda point: all(np.abs(point[x]).max() <= large for x in case.names), gold))
    rows = []
    for name in case.names:
        differences = [relative(mine[t][name], gold[t][name]) for t in range(n_kept)]
        wrong = [t for t, d in enumerate(differences) if not d <= TRAJECTORY_TOLERANCE]
        worst = float(np.max(differences)) if n_kept else float("nan")
        hint = ""
        if name in forgotten:
            worst, hint = float("inf"), f"{name!r} is in no group of the optimiser, so it never moves"
        elif wrong and upstream:
            hint = f"{FOLLOWS} {upstream[0]}"
        elif wrong:
            tested = {k: settings[k] for k in rules}
            hint = f"from step {wrong[0] + 1} on; " + steps.of_steps(
                mine[:n_kept], roles, values, batch, case.config, tested, TRAJECTORY_TOLERANCE
            )
        quantity = f"{roles.symbol(name)} after {n_kept} steps"
        rows.append(Row(quantity, worst, TRAJECTORY_TOLERANCE, DRAWN, name, hint))
    if n_kept < case.n_steps:
        at = f"by hand the parameters run away in step {n_kept + 1}"
        rows[0] = replace(rows[0], hint="; ".join(x for x in (rows[0].hint, f"{at}: compare with a smaller lr") if x))
    return rows


def _rule(case: Case, group: Mapping[str, Any]) -> steps.Rule:
    assert case.optimizer is not None
    if not case.by_config:
        return steps.rule_of(case.optimizer, group)
    if not isinstance(case.optimizer, torch.optim.SGD):
        raise ConfigError(
            f"the optimiser is {type(case.optimizer).__name__}, but config has the steps of SGD; give one of the two"
        )
    return steps.momentum_rule(case.config.lr, case.config.momentum, case.config.momentum_form)
