"""The Hessian along a direction by differentiating twice; the twin of `mf_numpy.curvature.hessian_vector`."""

from __future__ import annotations

import torch

from mf_numpy.config import Config
from mf_numpy.errors import ConfigError
from mf_numpy.model import Tensors
from mf_torch import paths
from mf_torch.batch import Batch
from mf_torch.model import MatrixFactorization
from mf_torch.paths.base import ByGraph


def hessian_vector(
    module: MatrixFactorization, direction: Tensors, batch: Batch, config: Config, *, path: str = "autograd"
) -> Tensors:
    """∇²J d as NumPy arrays by parameter name (Eq. 18): the gradient of ⟨∇J, d⟩ (Eq. 5).

    Args:
        path: another of `mf_torch.paths` that differentiates twice.

    Raises:
        ConfigError: no such path, or one that does not.
    """
    by = paths.get(path)
    if not (isinstance(by, ByGraph) and by.twice):
        raise ConfigError(f"path is {path!r}, whose gradient is no graph that can be differentiated; use 'autograd'")
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradient = torch.autograd.grad(
        by.objective(module, by.lay_out(batch, config), config).value, parameters, create_graph=True
    )
    along = [torch.as_tensor(direction[name], dtype=p.dtype, device=p.device) for name, p in module.named_parameters()]
    slope = torch.stack([(g * d).sum() for g, d in zip(gradient, along, strict=True)]).sum()  # Eq. 5
    products = torch.autograd.grad(slope, parameters)
    return {name: product.cpu().numpy() for name, product in zip(names, products, strict=True)}
