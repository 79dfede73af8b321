"""The fast twins of the hand-written mathematics, compiled by Numba.

`vector` has the operations on rows of K numbers, `layout` the order in which ratings are walked; `model` (Eq. 1),
`gradients` (Eq. 2 to 4), `design` (Eq. 33 to 35) and `optim` (Eq. 10, 12 to 14, 30) are written in them. With
MF_KERNELS=loops in the environment they compile to plain loops instead of vectors.
"""

from mf_numpy.kernels.design import design_room, gradient_of_features, rows_of_features
from mf_numpy.kernels.gradients import Workspace, gradient, workspace
from mf_numpy.kernels.model import predict
from mf_numpy.kernels.optim import update

__all__ = [
    "Workspace",
    "design_room",
    "gradient",
    "gradient_of_features",
    "predict",
    "rows_of_features",
    "update",
    "workspace",
]
