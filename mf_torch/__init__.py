"""The same matrix factorisation in PyTorch: the forward pass is Eq. 1, the loss Eq. 2, autograd does the rest.

File by file the twin of `mf_numpy`, from which data, configuration, training loop, results and metrics come.
"""

from mf_numpy import Config, FitResult
from mf_torch.model import MatrixFactorization
from mf_torch.module_check import ModuleReport, check_module
from mf_torch.objective import objective
from mf_torch.partial import partial_fit
from mf_torch.store import load
from mf_torch.train import fit, init, step

__version__ = "0.1.0"
__all__ = [
    "Config",
    "FitResult",
    "MatrixFactorization",
    "ModuleReport",
    "check_module",
    "fit",
    "init",
    "load",
    "objective",
    "partial_fit",
    "step",
]
