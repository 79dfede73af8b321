"""Which tensor of somebody else's module is which symbol of Eq. 1: by name, or by shape where shapes leave no choice.

Shapes: P (m, K), Q (n, K); b (m,) or (m, 1), c (n,) or (n, 1); μ a single number. Tables may have more rows than there
are users or items, for padding or ids that start at 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from torch import Tensor, nn

from mf_numpy.errors import ConfigError, choose
from mf_numpy.model import Params, Tensors
from mf_numpy.ratings import Array

ROLES = ("P", "Q", "b", "c", "mu")
SYMBOLS = {"P": "P", "Q": "Q", "b": "b", "c": "c", "mu": "μ"}


@dataclass(frozen=True, eq=False)
class Roles:
    """What each symbol of Eq. 1 is in a module.

    Attributes:
        names: the tensor's name by role; one tensor may have two roles. Roles that the module lacks are left out.
        mu: μ where no tensor holds it.
    """

    names: Mapping[str, str]
    mu: float = 0.0

    def params(self, values: Mapping[str, Array]) -> Params:
        """The hand-written version's parameters; a bias on one side only gets zeros for the other."""
        arrays = {role: values[name] for role, name in self.names.items()}
        p, q = arrays["P"], arrays["Q"]
        mu = float(arrays["mu"].item()) if "mu" in arrays else self.mu
        if "b" not in arrays and "c" not in arrays:
            return Params(p, q, mu=mu)
        b = arrays["b"].reshape(-1) if "b" in arrays else np.zeros(len(p))
        c = arrays["c"].reshape(-1) if "c" in arrays else np.zeros(len(q))
        return Params(p, q, b, c, mu=mu)

    def by_name(self, by_role: Mapping[str, Array], values: Mapping[str, Array]) -> Tensors:
        """Gradients by role → gradients by tensor, in the tensor's shape; two roles of one tensor add up."""
        out: Tensors = {}
        for role, name in self.names.items():
            part = np.reshape(by_role[role], values[name].shape)
            out[name] = out[name] + part if name in out else part
        return out

    def symbol(self, name: str) -> str:
        """``P``, or ``P+Q`` for a tensor with both roles."""
        return "+".join(SYMBOLS[role] for role, other in self.names.items() if other == name)


def find(
    module: nn.Module, m: int, n: int, names: Mapping[str, str | None] | None = None, mu: float | None = None
) -> Roles:
    """The roles of a module's tensors for at least m users and n items.

    Args:
        names: tensors by role; None says that the module lacks a role. Those not named are found by shape.
        mu: μ where it is no parameter or buffer.

    Raises:
        ConfigError: no such tensor, a shape that cannot have its role, or shapes that leave a choice.
    """
    tensors, alias = _tensors(module)
    given = _given(names or {}, alias, tensors)
    if mu is not None and given.get("mu") is not None:
        raise ConfigError(f"mu is {mu!r} and names has {given['mu']!r} for it, too; give one of them")
    if mu is not None:
        given["mu"] = None
    found: dict[str, str] = {role: name for role, name in given.items() if name is not None}
    free = {name: t for name, t in tensors.items() if name not in found.values()}
    found |= _factors(given, tensors, m, n)
    _check_shapes(found, tensors, m, n)
    rows = {"b": tensors[found["P"]].shape[0], "c": tensors[found["Q"]].shape[0]}
    columns = {name: t for name, t in free.items() if name not in found.values() and _is_column(t)}
    for role in ("b", "c"):
        if role not in given:
            fitting = [name for name, t in columns.items() if t.numel() == rows[role] > 1]
            _add(found, role, fitting, tensors)
    if found.get("b") is not None and found.get("b") == found.get("c") and not ("b" in given and "c" in given):
        raise ConfigError(_ambiguous("b", [found["b"]], tensors) + ", and c as well")
    if "mu" not in given:
        _add(found, "mu", [name for name, t in free.items() if t.numel() == 1], tensors)
    return Roles({role: found[role] for role in ROLES if role in found}, 0.0 if mu is None else float(mu))


def _tensors(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Floating-point parameters and buffers under their first name, and the first name of every name."""
    tensors: dict[str, Tensor] = {}
    alias: dict[str, str] = {}
    first: dict[int, str] = {}
    pairs = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in pairs:
        if tensor.is_floating_point():
            alias[name] = first.setdefault(id(tensor), name)
            tensors.setdefault(alias[name], tensor)
    return tensors, alias


def _given(
    names: Mapping[str, str | None], alias: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for role, name in names.items():
        choose("a key of names", role, ROLES)
        if name is not None and name not in alias:
            raise ConfigError(
                f"names has {name!r} for {role}, but the module has {_listing(tensors)}; name one of them"
            )
        given[role] = None if name is None else alias[name]
    for role in ("P", "Q"):
        if role in given and given[role] is None:
            raise ConfigError(f"names has None for {role}, but Eq. 1 has factors on both sides; name a table of them")
    return given


def _factors(given: Mapping[str, str | None], tensors: Mapping[str, Tensor], m: int, n: int) -> dict[str, str]:
    """The tables of P and Q: of the pairs with one K and rows enough, the one that fits the numbers of rows best."""
    free = [name for name, t in tensors.items() if t.ndim == 2 and t.shape[1] > 1 and name not in given.values()]
    least = {"P": m, "Q": n}
    choices: dict[int, list[dict[str, str]]] = {}
    for p, q in product(*([given[role] or ""] if role in given else free for role in least)):
        choice = {"P": p, "Q": q}
        tables = {role: tensors[name] for role, name in choice.items()}
        named = "P" in given and "Q" in given
        fits = p != q and len({t.shape[1:] for t in tables.values()}) == 1
        fits = fits and all(t.shape[0] >= least[role] for role, t in tables.items())
        if fits or named:
            choices.setdefault(sum(t.shape[0] == least[role] for role, t in tables.items()), []).append(choice)
    if not choices:
        raise ConfigError(
            f"no tables of (at least {m}, K) and (at least {n}, K) numbers with one K > 1 are in the module, which has "
            f"{_listing(tensors)}; pass names={{'P': ..., 'Q': ...}}"
        )
    best = choices[max(choices)]
    if len(best) > 1:
        fitting = {name: tensors[name] for choice in best for name in choice.values()}
        raise ConfigError(f"{_listing(fitting)} fit P and Q alike; pass {_suggested(best)}")
    return best[0]


def _suggested(choices: list[dict[str, str]]) -> str:
    """``names=`` with the choice that the tensors' names suggest."""
    choice = max(choices, key=lambda c: ("user" in c["P"].lower()) - ("user" in c["Q"].lower()))
    return f"names={{'P': {choice['P']!r}, 'Q': {choice['Q']!r}}}, or the other way round"


def _check_shapes(found: Mapping[str, str], tensors: Mapping[str, Tensor], m: int, n: int) -> None:
    shapes = {role: tuple(tensors[name].shape) for role, name in found.items()}
    for role, least, what in (("P", m, "m"), ("Q", n, "n")):
        if len(shapes[role]) != 2 or shapes[role][0] < least:
            raise ConfigError(
                f"{role} is {found[role]!r} of shape {shapes[role]}, but must be ({what}, K) with {what} of at least "
                f"{least}, the ratings' largest index + 1"
            )
    if shapes["P"][1] != shapes["Q"][1]:
        raise ConfigError(
            f"P is {found['P']!r} {shapes['P']} and Q is {found['Q']!r} {shapes['Q']}, but both must have the same K"
        )
    for role, table in (("b", "P"), ("c", "Q")):
        rows = shapes[table][0]
        if role in found and tensors[found[role]].numel() != rows:
            raise ConfigError(
                f"{role} is {found[role]!r} of shape {shapes[role]}, but must be ({rows},) or ({rows}, 1), as {table} "
                f"has {rows} rows"
            )
    if "mu" in found and tensors[found["mu"]].numel() != 1:
        raise ConfigError(f"mu is {found['mu']!r} of shape {shapes['mu']}, but must be a single number")


def _is_column(t: Tensor) -> bool:
    return t.ndim == 1 or (t.ndim == 2 and 1 in t.shape)


def _add(found: dict[str, str], role: str, fitting: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
    names = list(fitting)
    if len(names) > 1:
        raise ConfigError(_ambiguous(role, names, tensors))
    if names:
        found[role] = names[0]


def _ambiguous(role: str, names: list[str], tensors: Mapping[str, Tensor]) -> str:
    shown = ", ".join(f"{name!r} {tuple(tensors[name].shape)}" for name in names)
    return f"{shown} may be {role}; pass names={{{role!r}: {names[0]!r}}}, or None for a module without it"


def _listing(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name!r} {tuple(t.shape)}" for name, t in tensors.items()) or "no floating-point parameters"
