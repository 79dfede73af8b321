"""The tour: a marimo notebook to walk a class through the derivation. `make tour` opens it.

The only file of this package that imports PyTorch, by way of `mf_torch`, and nothing imports it.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="mf: one model, written twice")

with app.setup:
    from contextlib import suppress
    from dataclasses import replace

    import marimo as mo
    import numpy as np

    import mf_numpy
    import mf_torch
    from mf_numpy import check, curvature, tour_experiments, tour_figures, tour_table
    from mf_numpy.baselines import mean_and_bias_scores
    from mf_numpy.datasets import load
    from mf_numpy.planted import planted
    from mf_torch.check import observe, suite
    from mf_torch.train import TorchEngine


@app.cell(hide_code=True)
def opening():
    mo.md(r"""
    # One model, written twice

    A table of ratings is factorised by gradient descent. One version has every gradient derived and written out by
    hand (`mf_numpy`); in the other, autograd finds them (`mf_torch`). Move the controls: everything below is computed
    by the two packages while you watch. The equation numbers are those of `mf_numpy/derivation.md`.

    ## 1. Two versions, one curve

    Eq. 1 predicts $\hat r_{ui} = \mu + b_u + c_i + p_u \cdot q_i$, Eq. 2 is the objective J, and both versions lower it
    by the same rule (Eq. 12 to 14). The table is drawn from known factors, so we know how good a prediction can be.
    """)
    return


@app.cell(hide_code=True)
def ratings():
    drawn = planted(tour_experiments.CLASSROOM)
    split = mf_numpy.random_split(drawn.ratings, valid=0.2)
    levels = {name: s.rmse for name, s in mean_and_bias_scores(split.train, split.valid).items()}
    levels["noise floor"] = drawn.noise_floor_of(split.train, split.valid)
    return levels, split


@app.cell(hide_code=True)
def learning_controls():
    lrs = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    regs = [0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    settings = mo.ui.dictionary(
        {
            "n_factors": mo.ui.slider(1, 12, value=3, label="K, factors", show_value=True),
            "lr": mo.ui.slider(steps=lrs, value=20, label="η, learning rate", show_value=True),
            "momentum": mo.ui.slider(0, 0.98, 0.02, value=0.9, label="β, momentum", show_value=True),
            "momentum_form": mo.ui.dropdown(["ema", "heavy_ball", "nesterov"], value="ema", label="form of momentum"),
            "reg": mo.ui.slider(steps=regs, value=0.05, label="λ, penalty's weight", show_value=True),
            "penalty": mo.ui.dropdown(["per_rating", "total"], value="per_rating", label="penalty"),
            "loss": mo.ui.dropdown(["squared", "pseudo_huber"], value="squared", label="loss ℓ"),
            "loss_scale": mo.ui.slider(0.2, 5, 0.2, value=1, label="δ of pseudo_huber (rating)", show_value=True),
            "model": mo.ui.dropdown(["biased", "plain"], value="biased", label="model"),
            "init": mo.ui.dropdown(["normal", "uniform", "mean"], value="normal", label="start"),
            "n_epochs": mo.ui.slider(20, 300, 20, value=60, label="epochs", show_value=True),
        }
    )
    mo.hstack(list(settings.values()), wrap=True, justify="start", gap=1.5)
    return (settings,)


@app.cell(hide_code=True)
def learning_runs(settings, split):
    try:
        config = mf_numpy.Config(**settings.value, dtype="float64")
        with tour_experiments.working():
            by_hand = mf_numpy.fit(split.train, config, valid=split.valid, backend="numpy")
            by_autograd = mf_torch.fit(split.train, config, valid=split.valid)
        twin = TorchEngine(), observe
        differences = tour_experiments.differences(split.train, config, twin, len(by_hand.history))
        refused = None
    except mf_numpy.ConfigError as error:
        refused = f"These settings do not go together: {error}."
    mo.stop(refused is not None, mo.callout(refused, kind="warn"))
    return by_autograd, by_hand, differences


@app.cell(hide_code=True)
def learning_curves(by_autograd, by_hand, differences, levels):
    _allowed, _worst = check.TRAJECTORY_TOLERANCE, differences.max(initial=0.0)
    _text = f"After {len(differences)} steps, the largest difference of loss, E, gradients, velocities and parameters "
    _text += f"between the two versions is **{_worst:.1e}**, relative to the largest number of each; "
    _text += f"{_allowed:g} is allowed."
    if by_hand.status == "diverged":
        _above = [mo.callout(f"It diverged: {by_hand.message}.", kind="danger")]
    else:
        _above = []
        _text += f"\n\nHeld-out RMSE at the end: **{by_hand.history[-1].valid_rmse:.3f}**; "
        _text += "mean {mean:.3f}, bias-only {bias-only:.3f}; ".format(**levels)
        _text += "the noise that the ratings were drawn with leaves {noise floor:.3f} at best.".format(**levels)
    _figures = tour_figures.side_by_side(
        tour_figures.learning(by_hand, by_autograd),
        tour_figures.held_out(by_hand, by_autograd, levels),
        tour_figures.difference(differences, by_hand.config.n_epochs, _allowed),
        mo.md(_text).text,
    )
    mo.vstack([*_above, mo.Html(_figures)])
    return


@app.cell(hide_code=True)
def rating_text():
    mo.md(r"""
    ## 2. One rating's gradient

    One user, one item, one rating r, two factors, no penalty. The residual is $E = 2(\hat r - r)$ (Eq. 3), and the
    gradients are $\nabla p = E\,q$ and $\nabla q = E\,p$ (Eq. 4): **p moves along q, and q along p**, forwards while
    the prediction is too low and backwards while it is too high. Make η large, and both overshoot.
    """)
    return


@app.cell(hide_code=True)
def rating_controls():
    rating = mo.ui.dictionary(
        {
            "rating": mo.ui.slider(-5, 10, 0.5, value=5, label="rating r", show_value=True),
            "lr": mo.ui.slider(0, 0.5, 0.01, value=0.05, label="η", show_value=True),
            "p1": mo.ui.slider(-3, 3, 0.1, value=2, label="p, factor 1", show_value=True),
            "p2": mo.ui.slider(-3, 3, 0.1, value=0.5, label="p, factor 2", show_value=True),
            "q1": mo.ui.slider(-3, 3, 0.1, value=0.6, label="q, factor 1", show_value=True),
            "q2": mo.ui.slider(-3, 3, 0.1, value=1.8, label="q, factor 2", show_value=True),
        }
    )
    mo.hstack(list(rating.values()), wrap=True, justify="start", gap=1.5)
    return (rating,)


@app.cell(hide_code=True)
def rating_arrows(rating):
    _at = rating.value
    one = tour_experiments.one_rating((_at["p1"], _at["p2"]), (_at["q1"], _at["q2"]), _at["rating"], _at["lr"])
    _rows = {"prediction r̂ = p·q": one.predicted, "residual E": one.residual, "(r̂ − r)²": one.loss}
    _table = "\n".join(f"| {name} | {before:.2f} | {after:.2f} |" for name, (before, after) in _rows.items())
    _said = mo.md(
        "| | before | after a step |\n|:---|---:|---:|\n"
        + _table
        + "\n\nSolid: the factors as they are. Green: −η∇p at the tip of p, along q, and −η∇q at the tip of q, "
        "along p. Dashed: the factors after the step. Dotted: the line that each may move on."
    )
    mo.Html(tour_figures.side_by_side(tour_figures.one_rating(one), _said.text))
    return (one,)


@app.cell(hide_code=True)
def momentum_text():
    mo.md(r"""
    ## 3. Momentum's path on the loss surface

    The smallest model of all, one user, one item, K = 1: $J(p, q) = (pq - r)^2 + \lambda(p^2 + q^2)$ (Eq. 2). Its
    valley is the curve $pq \approx r$, and λ slopes the valley's floor down to the stars, where p and q are equal
    (Eq. 23). Four rules start at the big dot: plain gradient descent, the post's average (Eq. 12), the heavy
    ball (Eq. 13) and Nesterov (Eq. 14).
    """)
    return


@app.cell(hide_code=True)
def momentum_controls():
    ball = mo.ui.dictionary(
        {
            "lr": mo.ui.slider(
                steps=[0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1], value=0.01, label="η", show_value=True
            ),
            "momentum": mo.ui.slider(0.05, 0.95, 0.05, value=0.8, label="β", show_value=True),
            "reg": mo.ui.slider(0, 1, 0.05, value=0.2, label="λ", show_value=True),
            "rating": mo.ui.slider(1, 6, 0.5, value=3, label="rating r", show_value=True),
            "p": mo.ui.slider(-3.5, 3.5, 0.1, value=3.2, label="start p", show_value=True),
            "q": mo.ui.slider(-3.5, 3.5, 0.1, value=-0.6, label="start q", show_value=True),
            "steps": mo.ui.slider(10, 200, 10, value=60, label="steps", show_value=True),
        }
    )
    mo.hstack(list(ball.values()), wrap=True, justify="start", gap=1.5)
    return (ball,)


@app.cell(hide_code=True)
def momentum_paths(ball):
    _at = ball.value
    _config = mf_numpy.Config(
        model="plain",
        n_factors=1,
        penalty="total",
        dtype="float64",
        lr=_at["lr"],
        momentum=_at["momentum"],
        reg=_at["reg"],
    )
    taken = {
        rule: tour_experiments.path(rule, (_at["p"], _at["q"]), _at["rating"], _config, _at["steps"])
        for rule in tour_experiments.RULES
    }
    _place, _least = tour_experiments.least(_at["rating"], _at["reg"])
    mo.Html(
        tour_figures.side_by_side(
            tour_figures.paths(taken, tour_experiments.surface(_at["rating"], _at["reg"], 4.0), _place, 4.0),
            tour_figures.descent(taken, _least, _at["steps"]),
        )
    )
    return (taken,)


@app.cell(hide_code=True)
def cliff_text():
    mo.md(r"""
    ## 4. The bound on η is a cliff

    Near a minimum, J is a bowl whose steepest side has the second derivative L, the largest eigenvalue of the Hessian
    (Eq. 18). Eq. 21 says from which η on a small push along that side grows from step to step instead of shrinking.
    Here is a trained biased model, pushed by 10⁻⁶, and how far it is from the minimum many steps later.
    """)
    return


@app.cell(hide_code=True)
def cliff_controls():
    fraction = mo.ui.slider(0.5, 1.3, 0.01, value=0.98, label="η / bound", show_value=True)
    rule = mo.ui.dropdown(list(tour_experiments.RULES), value="heavy ball (Eq. 13)", label="rule")
    beta = mo.ui.slider(0.1, 0.9, 0.1, value=0.8, label="β", show_value=True)
    mo.hstack([fraction, rule, beta], wrap=True, justify="start", gap=1.5)
    return beta, fraction, rule


@app.cell(hide_code=True)
def trained():
    minimum = tour_experiments.minimum()
    return (minimum,)


@app.cell(hide_code=True)
def cliff_scan(beta, minimum, rule):
    # Not with the cell below, so that η moves over the cliff without running all of these again.
    _form, _with_momentum = tour_experiments.RULES[rule.value]
    edge = replace(minimum.config, momentum_form=_form, momentum=beta.value if _with_momentum else 0.0)
    bound = curvature.max_lr(minimum.curvature, edge)
    fractions = np.round(np.arange(0.5, 1.3001, 0.02), 2)
    ends = np.array([tour_experiments.departures(minimum, edge, bound * f, 200)[-1] for f in fractions])
    return bound, edge, ends, fractions


@app.cell(hide_code=True)
def cliff_figure(bound, edge, ends, fraction, fractions, minimum):
    _lr = bound * fraction.value
    _run = tour_experiments.departures(minimum, edge, _lr, 200)
    mo.vstack(
        [
            mo.md(f"L = {minimum.curvature:.4f}, so Eq. 21 bounds η at **{bound:.3f}**; chosen: {_lr:.3f}."),
            mo.Html(
                tour_figures.side_by_side(
                    tour_figures.cliff(fractions, ends, (fraction.value, _run[-1]), 200),
                    tour_figures.departure(_run, fraction.value),
                )
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def titles_text():
    mo.md(r"""
    ## 5. Titles placed by two factors

    A biased model with K = 2. The biases hold what everybody thinks; the two factors hold
    what people differ in. P and Q could be turned and stretched together without a change in any prediction (Eq. 22),
    so we turn them to the one form in which the axes mean something: orthogonal columns of equal size, the stronger
    first (Eq. 24). Nobody told the model what a title is about.
    """)
    return


@app.cell(hide_code=True)
def titles_controls():
    _here = []
    for _name in ("anime", "ml-100k"):
        with suppress(mf_numpy.DataError):
            load(_name)
            _here.append(_name)
    data = mo.ui.dropdown([*_here, "planted"], value=[*_here, "planted"][0], label="ratings")
    data
    return (data,)


@app.cell(hide_code=True)
def titles_map(data):
    _drawn = data.value == "planted"
    titles = tour_experiments.title_map(planted(tour_experiments.NAMELESS).ratings if _drawn else load(data.value))
    _nameless = (
        "These ratings are drawn, not real, and their items have no names: set the environment variable MF_DATA "
    )
    _nameless += "to a folder with `anime/` (the Kaggle table) or `ml-100k/` (MovieLens) in it to see titles."
    _side = {(0, 1): "right", (0, -1): "left", (1, 1): "top", (1, -1): "bottom"}
    _ends = "\n".join(
        f"| {_side[end.axis, end.sign]} | {'; '.join(end.titles)} | {', '.join(end.genres) or '–'} |"
        for end in titles.ends
    )
    mo.vstack(
        [
            *([mo.callout(mo.md(_nameless), kind="info")] if _drawn else []),
            mo.Html(tour_figures.titles(titles)),
            mo.md(
                f"Held-out RMSE {titles.rmse[0]:.3f} with the two factors, {titles.rmse[1]:.3f} with biases alone. "
                f"Of the {titles.n_known} items with the most ratings, furthest out on each axis:\n\n"
                "| end | furthest out | genres commoner there |\n|:---|:---|:---|\n" + _ends
            ),
        ]
    )
    return (titles,)


@app.cell(hide_code=True)
def faults_text():
    mo.md(r"""
    ## 6. The table turns red

    Every way to the gradient is compared with the plain loops: SciPy, Numba, complex step, central difference,
    autograd. Choose a mistake that somebody really made; it is put into the running package (no file is touched), and
    the tables are filled again.
    """)
    return


@app.cell(hide_code=True)
def faults_controls():
    checks = suite()
    chosen = mo.ui.dropdown(["none", *checks.faults], value="none", label="fault")
    chosen
    return checks, chosen


@app.cell(hide_code=True)
def faults_gradient(checks, chosen):
    fault = checks.faults.get(chosen.value)
    gradient_table = tour_table.table(checks, "gradient", fault)
    mo.vstack(
        [
            *([mo.md(fault.origin), mo.Html(tour_table.line(fault))] if fault else []),
            mo.md("**The gradient** (Eq. 6): largest relative difference from the loops; 1e-12 is allowed."),
            mo.Html(tour_table.equality(gradient_table, "gradient of")),
        ]
    )
    return fault, gradient_table


@app.cell(hide_code=True)
def faultless_steps():
    # Every path of torch takes its time to go 200 steps; autograd's shows it. Once: without a fault nothing changes.
    walks = suite(path="autograd")
    faultless = tour_table.table(walks, "trajectory", None)
    return faultless, walks


@app.cell(hide_code=True)
def faults_steps(fault, faultless, walks):
    step_table = tour_table.table(walks, "trajectory", fault) if fault else faultless
    mo.vstack(
        [
            mo.md("**200 steps** of every rule: largest relative difference from the loops; 1e-10 is allowed."),
            mo.Html(tour_table.equality(step_table, "after each step")),
        ]
    )
    return (step_table,)


@app.cell(hide_code=True)
def faults_named(checks, fault, gradient_table, step_table):
    mo.stop(fault is None)
    named = tour_table.named_checks(checks, fault)
    _green = "Both tables stay green: they do not run this line, or every version shares it. "
    mo.vstack(
        [
            mo.md(
                (_green if gradient_table.ok and step_table.ok else "") + "**The named checks** that must reject it:"
            ),
            mo.Html(tour_table.verdicts(named)),
        ]
    )
    return (named,)


if __name__ == "__main__":
    app.run()
