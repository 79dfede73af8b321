"""Parameters as state dicts and model files as modules, bit for bit; it reads what its twin `mf_numpy.store` wrote.

A state dict holds P (m, K), Q (n, K) and, in the biased model, b (m,) and c (n,) in the dtype of training, and μ as a
0-d float64 tensor; where ratings are grades, t (G - 1,) and grades (G,) as well, and unit as another such number. It
holds tensors alone, so ``torch.load(..., weights_only=True)`` reads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mf_numpy import store
from mf_numpy.engine import State
from mf_numpy.errors import DataError
from mf_numpy.grades import Cuts
from mf_numpy.model import Params
from mf_numpy.result import FitResult
from mf_torch.model import MatrixFactorization

_FACTORS, _BIASES, _CUTS = ("P", "Q"), ("b", "c"), ("t", "grades", "unit")
_DTYPES = (torch.float32, torch.float64)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> MatrixFactorization:
    """The module of a model file that ``fit --output`` or `FitResult.save` wrote, whichever package trained it.

    Ids, history and seen items stay in the file: `mf_numpy.store.load` reads those, and `with_module` puts a module
    that was trained further back among them.

    Raises:
        FileNotFoundError: no such file, with the nearest name in its folder.
        FileFormatError: another kind of file, a truncated or damaged one, or one of a newer format version.
    """
    return MatrixFactorization(store.load(path).params, device)


def to_state_dict(params: Params) -> dict[str, Tensor]:
    """What ``MatrixFactorization(params).state_dict()`` holds, copied from the arrays."""
    return dict(MatrixFactorization(params).state_dict())


def from_state_dict(state: Mapping[str, Tensor]) -> Params:
    """Parameters of a state dict of `MatrixFactorization`, copied; the inverse of `to_state_dict`.

    Raises:
        DataError: a name that is missing or unknown, shapes that do not belong together, or another dtype than
            float32 and float64.
    """
    known = {*_FACTORS, *_BIASES, *_CUTS, "mu"}
    unknown = [name for name in state if name not in known]
    if unknown:
        raise DataError(
            f"the state dict has {unknown[0]!r}, but P, Q, b, c and mu alone, and t, grades and unit where ratings are "
            "grades, belong to this model; a prefix goes away with "
            "torch.nn.modules.utils.consume_prefix_in_state_dict_if_present"
        )
    biased = any(name in state for name in _BIASES)
    graded = any(name in state for name in _CUTS)
    wanted = (*_FACTORS, *(_BIASES if biased else ()), *(_CUTS if graded else ()), "mu")
    missing = [name for name in wanted if name not in state]
    if missing:
        raise DataError(f"the state dict lacks {missing[0]!r}; save the state dict of a whole MatrixFactorization")
    p, q = state["P"], state["Q"]
    if p.ndim != 2 or q.ndim != 2 or p.shape[1] != q.shape[1]:
        raise DataError(f"P has shape {tuple(p.shape)} and Q {tuple(q.shape)}, but must be (m, K) and (n, K)")
    for name, table in zip(_BIASES, (p, q), strict=True):
        if biased and state[name].shape != table.shape[:1]:
            raise DataError(f"{name} has shape {tuple(state[name].shape)}, but must be {tuple(table.shape[:1])}")
    if graded and (state["t"].ndim != 1 or state["grades"].shape != (len(state["t"]) + 1,)):
        shapes = f"t has shape {tuple(state['t'].shape)} and grades {tuple(state['grades'].shape)}"
        raise DataError(f"{shapes}, but must be (G - 1,) and (G,)")
    for name in ("mu", *(("unit",) if graded else ())):
        if state[name].numel() != 1:
            raise DataError(f"{name} has shape {tuple(state[name].shape)}, but must be a single number")
    tables = [name for name in wanted if name not in ("mu", "unit")]
    for name in tables:
        if state[name].dtype not in _DTYPES or state[name].dtype != p.dtype:
            raise DataError(
                f"{name} is {state[name].dtype}, but all of {', '.join(tables)} must be float32, or all float64; "
                "convert the module with .float() or .double() first"
            )
    arrays = {name: state[name].detach().cpu().numpy().copy() for name in tables}
    cuts = Cuts(arrays["t"], arrays.pop("grades"), float(state["unit"])) if graded else None
    return Params.of(arrays, float(state["mu"]), cuts)


def with_module(result: FitResult, module: MatrixFactorization) -> FitResult:
    """A fitted model with the parameters of a module, to predict, recommend and `save` with its ids.

    Where the module holds the result's own parameters, bit for bit, this is the result itself. Otherwise the velocity
    is left out, since it belonged to other parameters, and `fit(resume=...)` starts from these without one.

    Raises:
        DataError: a module of other users, items or factors, of the other model, or of another dtype than the result's.
    """
    params = from_state_dict(module.state_dict())
    old = result.params
    shapes, wanted = ({name: a.shape for name, a in p.tensors().items()} for p in (params, old))
    if shapes != wanted:
        raise DataError(
            f"the module has {_listed(shapes)}, but the fitted model {_listed(wanted)}; give the same model"
        )
    if params.P.dtype != old.P.dtype:
        raise DataError(
            f"the module is {params.P.dtype} and the fitted model {old.P.dtype}; convert the module to that first"
        )
    same = all(a.tobytes() == old.tensors()[name].tobytes() for name, a in params.tensors().items())
    if same and params.mu == old.mu:
        return result
    message = f"the parameters are a module's, trained outside of fit after epoch {result.state.epoch}"
    return replace(
        result,
        params=params,
        state=State(params, None, result.state.epoch),
        status="stopped",
        message=message,
        backend="torch",
        device=str(module.P.device),
    )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
