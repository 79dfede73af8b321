"""Wrong lines of means over several chains (Eq. 70) and over epochs (Eq. 84), for `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

SEVERAL: tuple[Fault, ...] = (
    Fault(
        name="chains-from-one-start",
        function="mf_numpy.posterior:seed_of",
        right="return int(np.random.SeedSequence([config.seed, chain]).generate_state(1)[0]) if chain else config.seed",
        wrong="return config.seed",
        origin="The seed that makes a fit repeatable is given to each chain: all begin at one place, in one mode.",
        caught_by=("chains walked one by one", "starts of chains"),
    ),
    Fault(
        name="burn-in-of-the-first-chain-alone",
        function="mf_numpy.posterior:is_kept",
        right="past = place(epoch, config)[1] - config.burn_in",
        wrong="past = epoch - config.burn_in",
        origin="Epochs are numbered through: what a later chain walks from its start counts as draws.",
        caught_by=("chains walked one by one", "mean over chains"),
    ),
    Fault(
        name="mean-over-the-last-chain",
        function="mf_numpy.train:run",
        right="state = engine.start(replace(anew, epoch=here.epoch, draws=here.draws), whole, config)",
        wrong="state = engine.start(replace(anew, epoch=here.epoch), whole, config)",
        origin="A new chain begins with a new state, and the draws before it lay in the old one.",
        caught_by=("chains walked one by one", "mean over chains"),
    ),
    Fault(
        name="mean-of-all-epochs",
        function="mf_numpy.averaging:after",
        right="if config.average_from is None or epoch < config.average_from:",
        wrong="if config.average_from is None:",
        origin="The way from the start to the minimum is averaged, too.",
        caught_by=("averaged iterates", "error of averaged iterates"),
    ),
    Fault(
        name="mean-with-the-count-before",
        function="mf_numpy.averaging:Average.with_point",
        right="means, count = self.tensors, self.count + 1",
        wrong="means, count = self.tensors, self.count",
        origin="Eq. 84 divides by how many epochs the mean is of with the new one: one less forgets all but the last.",
        caught_by=("averaged iterates", "error of averaged iterates", "spread of averaged iterates"),
    ),
)
