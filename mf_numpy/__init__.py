"""Matrix factorisation of ratings with every gradient derived and written out by hand.

Read the files in the order of the derivation: `ratings`, `model` (Eq. 1), `objective` (Eq. 2, 3),
`gradients` (Eq. 6), `optim` (Eq. 12), `train`; beside them `loops`, the slow reference, and `kernels`, the
fast one. Nothing here needs PyTorch; `mf_torch` is the same model with autograd.
"""

from mf_numpy.config import Config
from mf_numpy.design import Design
from mf_numpy.ensemble import ensemble
from mf_numpy.errors import ConfigError, DataError, FileFormatError
from mf_numpy.features import Features, design_of
from mf_numpy.partial import partial_fit
from mf_numpy.ratings import IdMap, Ratings
from mf_numpy.result import FitResult
from mf_numpy.split import Holdout, Split, hold_out, k_fold, leave_last, random_split
from mf_numpy.store import load
from mf_numpy.train import fit, init, step

__version__ = "0.1.0"
__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "Design",
    "Features",
    "FileFormatError",
    "FitResult",
    "Holdout",
    "IdMap",
    "Ratings",
    "Split",
    "design_of",
    "ensemble",
    "fit",
    "hold_out",
    "init",
    "k_fold",
    "leave_last",
    "load",
    "partial_fit",
    "random_split",
    "step",
]
