"""A user's own `nn.Module` held to the hand-written model; `mf_torch/guide.md` shows how.

Read `check` (what is asked), `roles` (which tensor is which symbol), `probe` (the copy that is asked), `rows` (what is
compared) with `case` and `steps`, `hints` (what a difference looks like) and `report`.
"""

from mf_torch.module_check.check import check_module
from mf_torch.module_check.report import ModuleMismatchError, ModuleReport, Row

__all__ = ["ModuleMismatchError", "ModuleReport", "Row", "check_module"]
