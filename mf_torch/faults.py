"""The faults of the port, and those that torch is asked about; `mf_numpy.catalogue` has the hand-written version's."""

from __future__ import annotations

from mf_numpy.faults import Fault

_LIST = (
    Fault(
        name="dampening-1-minus-beta",
        function="mf_torch.optim:sgd",
        right='dampening = config.momentum if config.momentum_form == "ema" else 0.0',
        wrong='dampening = 1 - config.momentum if config.momentum_form == "ema" else 0.0',
        origin="torch adds (1 - dampening) g, so the average is dampening = β; a design note of this project had 1-β.",
        caught_by=("trajectories", "torch.optim.SGD", "constant gradient", "unrolled velocity", "worked example"),
    ),
    Fault(
        name="torch-sum-for-mean",
        function="mf_torch.objective:objective",
        right="data_term = loss(error, config).mean()",
        wrong="data_term = loss(error, config).sum()",
        origin="reduction='sum' beside a penalty that is no sum; J and autograd's gradient agree, both wrong.",
        caught_by=("loops", "complex step", "worked example", "every rating twice", "weight_decay"),
    ),
    Fault(
        name="penalty-detached",
        function="mf_torch.objective:objective",
        right="return Objective(data_term + penalty(module, batch, config), squared_error)",
        wrong="return Objective(data_term + penalty(module, batch, config).detach(), squared_error)",
        origin="The penalty is reported in the loss and cut off from the graph, so that nothing pulls.",
        caught_by=("loops", "autograd", "along a line", "worked example", "weight_decay"),
    ),
    Fault(
        name="zero-grad-forgotten",
        function="mf_torch.paths.base:ByGraph._differentiate",
        right="module.zero_grad(set_to_none=True)",
        wrong="pass",
        origin="backward() adds to what is in grad already, so that gradients of all steps pile up.",
        caught_by=("trajectories", "resumed run", "velocity at rest"),
    ),
    Fault(
        name="nesterov-flag-lost",
        function="mf_torch.optim:sgd",
        right='nesterov=config.momentum_form == "nesterov",',
        wrong="nesterov=False,",
        origin="A setting is read and not passed on; the run works, as a heavy ball.",
        caught_by=("trajectories", "torch.optim.SGD", "constant gradient", "unrolled velocity", "worked example"),
    ),
    Fault(
        name="torch-biases-unpenalised",
        function="mf_torch.objective:penalty",
        right="norms_u, norms_i = norms_u + module.b**2, norms_i + module.c**2",
        wrong="pass",
        origin="Only the factors are put into the penalty, as in models whose biases are free.",
        caught_by=("loops", "complex step", "worked example", "exact minimiser", "weight_decay"),
    ),
    Fault(
        name="weights-of-the-first-row",
        function="mf_torch.objective:penalty",
        right="w_u, w_i = batch.shares(norms_u.dtype)",
        wrong="w_u, w_i = (w[:1].expand(len(x)) for w, x in zip(batch.shares(norms_u.dtype), (norms_u, norms_i)))",
        origin="Every row is given the weight of the first one: a shape that broadcasts hides it.",
        caught_by=("loops", "complex step", "worked example", "exact minimiser", "renamed ids"),
    ),
    Fault(
        name="mean-trained",
        function="mf_torch.model:MatrixFactorization.__init__",
        right='self.register_buffer("mu", torch.tensor(params.mu, dtype=torch.float64, device=device))',
        wrong="self.mu = trained(np.array(params.mu))",
        origin="nn.Parameter instead of a buffer: μ is trained and penalised by nobody, and drifts.",
        caught_by=("training mean", "resumed run"),
    ),
    Fault(
        name="mean-counted-twice",
        function="mf_torch.model:MatrixFactorization.forward",
        right="predicted = self.mu.to(dot.dtype) + dot",
        wrong="predicted = 2 * self.mu.to(dot.dtype) + dot",
        origin="Ratings are centred in one place and μ is added in another, or in both.",
        caught_by=("loops", "complex step", "worked example", "exact minimiser"),
    ),
    Fault(
        name="schedule-forgotten",
        function="mf_torch.train:_advance",
        right="set_lr(state.optimizer, config.lr_at(state.epoch + 1))",
        wrong="pass",
        origin="The learning rate is given to the optimiser when it is made, and its schedule to nobody.",
        caught_by=("trajectories", "unrolled velocity"),
    ),
    Fault(
        name="torch-float32-loss",
        function="mf_torch.objective:objective",
        right="squared_error = (error.detach().double() ** 2).sum()",
        wrong="squared_error = (error.detach() ** 2).sum()",
        origin="The sum behind an RMSE is left in the precision of the parameters.",
        caught_by=("exact sums", "pooled epoch"),
    ),
    Fault(
        name="transpose-not-permuted",
        function="mf_torch.paths.layout:SparseBatch.pulled_items",
        right="of_items = torch.index_select(e, 0, self.order)",
        wrong="of_items = e",
        origin="The pattern is transposed once and E anew in each step, and the numbers stay in the order of the rows.",
        caught_by=("loops", "complex step", "gauge identity", "autograd", "Hessian by torch"),
    ),
    Fault(
        name="torch-lost-duplicates",
        function="mf_torch.paths.layout:Compressed.times",
        right="matrix = self.matrix(values)",
        wrong="matrix = table.new_zeros(self.shape)\n"
        "rows = torch.repeat_interleave(torch.arange(self.shape[0]), self.indptr.diff())\n"
        "matrix[rows, self.indices.long()] = values",
        origin="E is filled by index assignment, which keeps one of the ratings of a pair and drops the others.",
        caught_by=("loops", "complex step", "worked example", "every rating twice", "torch.autograd.gradcheck"),
    ),
    Fault(
        name="rows-one-too-far",
        function="mf_torch.paths.layout:_begins",
        right="return torch.searchsorted(rows, each)",
        wrong="return torch.searchsorted(rows, each, right=True)",
        origin="Where a row begins is searched for with the side that finds where it ends.",
        caught_by=("loops", "complex step", "exact minimiser"),
    ),
    Fault(
        name="product-rule-halved",
        function="mf_torch.paths.sparse:Pulled.backward",
        right="of_e = predicted(d_p, Q, d_b, d_c, ctx.batch) + predicted(P, d_q, None, None, ctx.batch)",
        wrong="of_e = predicted(d_p, Q, d_b, d_c, ctx.batch)",
        origin="A backward that nobody differentiates again has one of the two terms; every gradient is right.",
        caught_by=("torch.autograd.gradcheck", "Hessian by torch"),
    ),
    Fault(
        name="manual-2-dropped",
        function="mf_torch.paths.manual:Manual._differentiate",
        right="share, reg = 1 / len(batch), 2 * config.reg",
        wrong="share, reg = 1 / len(batch), config.reg",
        origin="weight_decay is 2λ where the penalty is λ times a square, and the 2 is left out or put in twice.",
        caught_by=("loops", "complex step", "along a line", "exact minimiser", "weight_decay"),
    ),
    Fault(
        name="manual-bias-not-averaged",
        function="mf_torch.paths.manual:Manual._differentiate",
        right="module.c.grad = et_1 * share + reg * w_i * module.c  # Eq. 6",
        wrong="module.c.grad = et_1 + reg * w_i * module.c",
        origin="The mean is taken where the factors' gradients are made, and forgotten for the biases beside them.",
        caught_by=("loops", "complex step", "worked example", "exact minimiser", "weight_decay"),
    ),
    Fault(
        name="adam-uncorrected",
        function="mf_numpy.adaptive:adam",
        right="mean, spread = first / (1 - beta1**steps), np.sqrt(second / (1 - beta2**steps))",
        wrong="mean, spread = first, np.sqrt(second)",
        origin="The running means start at 0, and the correction for it is left out as if it were a detail.",
        caught_by=("Adam by hand", "torch.optim.Adam"),
    ),
)

TORCH_FAULTS = {fault.name: fault for fault in _LIST}
"""By name."""
