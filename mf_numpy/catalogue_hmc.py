"""Wrong lines of Hamiltonian steps (Eq. 75 to 78), for `mf_numpy.catalogue`."""

from __future__ import annotations

from mf_numpy.faults import Fault

HMC: tuple[Fault, ...] = (
    Fault(
        name="prior-without-a-half",
        function="mf_numpy.hmc:potential",
        right="out += float(((away @ prior.precision) * away).sum()) / 2",
        wrong="out += float(((away @ prior.precision) * away).sum())",
        origin="The ½ of the normal's exponent is written for the ratings, and forgotten for the rows.",
        caught_by=("slope of the potential", "trajectory by the book", "energy to second order"),
    ),
    Fault(
        name="slope-of-a-mean",
        function="mf_numpy.hmc:slope",
        right="pull_user, pull_item = (alpha * n_ratings / 2 * side.astype(np.float64) for side in tables(gradient))",
        wrong="pull_user, pull_item = (alpha / 2 * side.astype(np.float64) for side in tables(gradient))",
        origin="∇J is of the mean loss; minus the logarithm of a density is a sum. The chain stays right, and crawls.",
        caught_by=("slope of the potential", "trajectory by the book", "energy to second order"),
    ),
    Fault(
        name="slope-without-a-half",
        function="mf_numpy.hmc:slope",
        right="pull_user, pull_item = (alpha * n_ratings / 2 * side.astype(np.float64) for side in tables(gradient))",
        wrong="pull_user, pull_item = (alpha * n_ratings * side.astype(np.float64) for side in tables(gradient))",
        origin="E = 2(r̂ - r) has the 2 that the ½ of the normal's exponent takes away.",
        caught_by=("slope of the potential", "trajectory by the book"),
    ),
    Fault(
        name="slope-without-a-prior",
        function="mf_numpy.hmc:slope",
        right="return pull_user + back_user, pull_item + back_item",
        wrong="return pull_user + back_user, pull_item",
        origin="The prior is in the energy of both sides, and in the slope of the one that was written first.",
        caught_by=("slope of the potential", "trajectory by the book"),
    ),
    Fault(
        name="whole-kicks",
        function="mf_numpy.hmc:trajectory",
        right="there = look((there.theta[0] + lr * user / of_user, there.theta[1] + lr * item / of_item))",
        wrong="user, item = user - lr / 2 * there.slope[0], item - lr / 2 * there.slope[1]\n"
        "there = look((there.theta[0] + lr * user / of_user, there.theta[1] + lr * item / of_item))",
        origin="Kicks are put together wherever two half ones meet, and the first one is made whole too.",
        caught_by=("trajectory by the book", "there and back", "energy to second order"),
    ),
    Fault(
        name="drift-before-mass",
        function="mf_numpy.hmc:trajectory",
        right="there = look((there.theta[0] + lr * user / of_user, there.theta[1] + lr * item / of_item))",
        wrong="there = look((there.theta[0] + lr * user, there.theta[1] + lr * item))",
        origin="Momentum is taken for velocity, which it is as long as all masses are 1.",
        caught_by=("trajectory by the book", "energy to second order"),
    ),
    Fault(
        name="potential-alone",
        function="mf_numpy.hmc:swept",
        right="rise = there.energy - here.energy + kinetic(end, mass) - kinetic(momentum, mass)",
        wrong="rise = there.energy - here.energy",
        origin="Metropolis' rule is written down as for a random walk, which has no velocity to account for.",
        caught_by=("trajectory by the book", "a normal stays one"),
    ),
    Fault(
        name="always-accepted",
        function="mf_numpy.hmc:accepted",
        right="return math.log(uniform) < -rise",
        wrong="return math.isfinite(rise)",
        origin="Steps are so short that everything is accepted, until the day when they are not.",
        caught_by=("trajectory by the book", "a normal stays one"),
    ),
    Fault(
        name="momentum-of-variance-one",
        function="mf_numpy.hmc:start",
        right="return np.sqrt(mass[0]) * noise.user.rows, np.sqrt(mass[1]) * noise.item.rows",
        wrong="return noise.user.rows, noise.item.rows",
        origin="Masses are added to the steps later, and the draw of the momenta stays as it was.",
        caught_by=("trajectory by the book", "a normal stays one"),
    ),
)
