"""A fit on several processes and machines, by `torch.distributed`: ratings and P in shards by user.

``torchrun --nproc-per-node 2 -m mf_torch.distributed fit PARTS`` starts it; `mf_torch/README.md` says how it scales.
"""

from mf_torch.distributed.group import joined
from mf_torch.distributed.partition import partition
from mf_torch.distributed.train import Share, fit

__all__ = ["Share", "fit", "joined", "partition"]
