"""Ways to J and ∇J in PyTorch, by name: one function (Eq. 2, Eq. 6), computed differently.

`autograd` is the reference that the others are held to; `mf_torch/README.md` says what each is for.
"""

from __future__ import annotations

from collections.abc import Mapping

from mf_numpy.errors import choose
from mf_torch.paths.autograd import Autograd
from mf_torch.paths.base import Path
from mf_torch.paths.compiled import Compiled
from mf_torch.paths.fused import Fused
from mf_torch.paths.manual import Manual
from mf_torch.paths.sparse import Sparse

PATHS: Mapping[str, Path] = {path.name: path for path in (Autograd(), Compiled(), Sparse(), Manual(), Fused())}
"""By name; a path belongs to no run, so one object serves all."""

__all__ = ["PATHS", "Path", "get"]


def get(name: str) -> Path:
    """The path of a name.

    Raises:
        ConfigError: no such path, with all names and the nearest one.
    """
    return PATHS[choose("path", name, PATHS)]
