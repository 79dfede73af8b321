"""The command line of `mf_torch.distributed` as torchrun starts it; in its first life, process 1 kills itself.

``MF_TEST_KILL`` is how many updates it makes before.
"""

from __future__ import annotations

import os
import signal
import sys

from mf_torch.distributed.__main__ import main
from mf_torch.distributed.step import Stepper

if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
    move, left = Stepper.move, [int(os.environ["MF_TEST_KILL"])]

    def killed(self: Stepper, lr: float) -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        move(self, lr)

    Stepper.move = killed  # type: ignore[method-assign]

sys.exit(main())
