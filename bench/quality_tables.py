"""Tables of the derivation: what each idea gains, from the quality part of the committed rungs; English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mf_numpy.recipes import RECIPES

if TYPE_CHECKING:
    from bench.tables import Cells, Source, Text

FORMS: Mapping[str, Text] = {
    "gradient_descent": ("none", "无"),
    "ema": ("the post's average (Eq. 12)", "原博文的滑动平均（式 12）"),
    "heavy_ball": ("heavy ball (Eq. 13)", "重球法（式 13）"),
    "nesterov": ("Nesterov (Eq. 14)", "Nesterov（式 14）"),
}
STARTS: Mapping[str, Text] = {
    "uniform": ("U(0, 11/K), the post's", "U(0, 11/K)，原博文"),
    "mean": ("U(0, 2√(μ/K)), `mean`", "U(0, 2√(μ/K))，`mean`"),
    "normal": ("N(0, 0.1²)", "N(0, 0.1²)"),
}
ENDS: Mapping[str, Text] = {
    "mean": ("the mean", "均值"),
    "bias-only": ("mean and biases alone", "只有均值与偏置"),
    "post": ("recipe `post`", "配方 `post`"),
    "biased": ("recipe `biased`, K = 64", "配方 `biased`，K = 64"),
    "floor": ("noise floor, the truth itself", "噪声下限，即真值本身"),
}


def biases(of: Source) -> tuple[Cells, str]:
    """What biases are worth: RMSE and iterations at the minimum."""
    cells = [[of.say("model", "模型"), "K", "RMSE", of.say("iterations", "迭代次数")]]
    for row in of.quality("biases")["rows"]:
        name = of.say("p·q alone", "只有 p·q") if row["model"] == "plain" else "μ + b + c + p·q"
        cells.append([name, str(row["n_factors"]), f"{row['rmse']:.3f}", f"{row['iterations']:,}"])
    cells.append([of.say(*ENDS["floor"]), "", f"{_floor(of):.3f}", ""])
    return cells, of.say(
        "Validation RMSE at the minimum, and iterations until it is within 0.001 of that.",
        "最小值处的验证 RMSE，以及与之相差不超过 0.001 所需的迭代次数。",
    )


def penalty(of: Source) -> tuple[Cells, str]:
    """Both penalties at their best λ, for users with few and with many ratings."""
    entry = of.quality("penalty")
    few, many = (f"{entry[name]:.0f}" for name in ("few", "many"))
    head = [of.say("penalty", "惩罚项"), "λ", "RMSE", of.say(f"users with ≤ {few} ratings", f"评分 ≤ {few} 条的用户")]
    cells = [[*head, of.say(f"users with ≥ {many}", f"评分 ≥ {many} 条的用户")]]
    for row in entry["rows"]:
        post = row["penalty"] == "total" and row["reg"] == RECIPES["post"].config.reg
        if not row["best"] and not post:
            continue
        name = f"`{row['penalty']}`" + of.say(", best λ of five", "，五个 λ 中最好的") * row["best"]
        name += of.say(", the post's λ", "，原博文的 λ") * (post and not row["best"])
        errors = [f"{row[key]:.3f}" for key in ("rmse", "rmse_few", "rmse_many")]
        cells.append([name, f"{row['reg']:g}", *errors])
    return cells, of.say(
        f"Validation RMSE, biased model, K = {entry['n_factors']}.",
        f"验证 RMSE，带偏置的模型，K = {entry['n_factors']}。",
    )


def momentum(of: Source) -> tuple[Cells, str]:
    """Iterations of every form of momentum, at one step and at the best."""
    entry = of.quality("momentum")
    head = [of.say("momentum, β = 0.9", "动量，β = 0.9"), of.say("same effective step 1/L", "有效步长同为 1/L")]
    head += [of.say("at the best η", "最好的 η 下"), of.say("that η / bound (Eq. 21)", "该 η / 上界（式 21）")]
    cells = [[*head, of.say("diverged at", "发散于")]]
    for row in entry["rows"]:
        lost = [f"{tried['share']:g}" for tried in row["tried"] if tried["iterations"] is None]
        best = [_count(row["best"]), "–" if row["best_share"] is None else f"{row['best_share']:g}"]
        cells.append([of.say(*FORMS[row["form"]]), _count(row["equal_step"]), *best, ", ".join(lost) or "–"])
    return cells, of.say(
        "Iterations until J is within 0.001 of its minimum, for η chosen of five shares of the bound.",
        "J 与最小值相差不超过 0.001 所需的迭代次数；η 取上界的五种比例之一。",
    )


def batches(of: Source) -> tuple[Cells, str]:
    """Epochs and seconds to a target by the size of a batch."""
    from bench.tables import digits

    entry = of.quality("batches")
    head = [
        of.say("ratings a batch", "每批评分数"),
        of.say("updates an epoch", "每轮更新次数"),
        of.say("best η", "最好的 η"),
    ]
    cells = [[*head, of.say("epochs", "轮数"), of.say("seconds", "秒")]]
    for row in entry["rows"]:
        size = of.say("all", "全部") if row["batch_size"] is None else f"{row['batch_size']:,}"
        spent = "–" if row["epochs"] is None else digits(row["epochs"] * row["seconds_per_epoch"], 2)
        lr = "–" if row["lr"] is None else f"{row['lr']:g}"
        cells.append([size, f"{row['updates_per_epoch']:,}", lr, _count(row["epochs"]), spent])
    until = of.say(
        f"Until the validation RMSE is {entry['target_rmse']:.3f}; Nesterov, Numba, η chosen of six.",
        f"验证 RMSE 降到 {entry['target_rmse']:.3f} 为止；Nesterov，Numba，η 从六个值中选取。",
    )
    return cells, of.notes(until, of.held(entry["others_busy_cores"], "the seconds", "所用秒数"))


def loss(of: Source) -> tuple[Cells, str]:
    """Both losses on training ratings of which a part is noise."""
    entry = of.quality("loss")
    cells = [
        [
            of.say("training ratings replaced by noise", "训练评分中换成噪声的比例"),
            of.say("squared", "平方损失"),
            of.say(f"pseudo-Huber, δ = {entry['delta']:g}", f"伪 Huber，δ = {entry['delta']:g}"),
        ]
    ]
    found = {(row["replaced"], row["loss"]): f"{row['rmse']:.4f}" for row in entry["rows"]}
    shares = dict.fromkeys(row["replaced"] for row in entry["rows"])
    cells += [[f"{100 * share:g} %", found[share, "squared"], found[share, "pseudo_huber"]] for share in shares]
    return cells, of.say(
        "Validation RMSE on ratings that are as they were; the noise is uniform over the scale.",
        "在未被改动的验证评分上的 RMSE；噪声在评分范围上均匀分布。",
    )


def start(of: Source) -> tuple[Cells, str]:
    """RMSE before and after 50 iterations from every start."""
    head = [of.say("start", "起点"), "K", of.say("RMSE before", "开始时的 RMSE")]
    cells = [[*head, of.say("after 50 iterations", "50 次迭代后")]]
    cells += [
        [of.say(*STARTS[row["init"]]), str(row["n_factors"]), f"{row['rmse_start']:.2f}", f"{row['rmse']:.3f}"]
        for row in of.quality("start")["rows"]
    ]
    return cells, of.say("Validation RMSE, plain model, one η for each K.", "验证 RMSE，朴素模型，每个 K 用同一个 η。")


def post(of: Source) -> tuple[Cells, str]:
    """Where the post's recipe ends, beside what is known without it."""
    cells = [["", "RMSE", of.say("iterations", "迭代次数")]]
    rows = sorted(of.quality("post")["rows"], key=lambda row: -float(row["rmse"]))
    cells += [[of.say(*ENDS[row["name"]]), f"{row['rmse']:.3f}", _count(row.get("iterations") or None)] for row in rows]
    return cells, of.say("Validation RMSE on the planted ratings, 80/20.", "生成数据上的验证 RMSE，80/20 划分。")


def _floor(of: Source) -> float:
    return next(float(row["rmse"]) for row in of.quality("post")["rows"] if row["name"] == "floor")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
