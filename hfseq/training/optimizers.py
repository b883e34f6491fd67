"""Three optimisers for the stock `Trainer`, and which parameters decay.

`optimizer_factory(name, args)` returns what `Trainer(optimizer_cls_and_kwargs=...)` takes:

- `adamw`: torch's fused AdamW (Loshchilov and Hutter 2019). Unlike Trainer's own groups, embeddings do not decay.
- `ntasgd`: SGD with non-monotonically triggered averaging (Merity et al. 2017), see `averaging.py`.
- `muon`: Muon (Jordan et al. 2024) for the matrices inside the network, AdamW for embeddings, output layer, biases
  and norms. The update is scaled to AdamW's size (Liu et al. 2025), so one learning rate serves both.

Everything an optimiser knows is in `state_dict()`, so Trainer's own checkpoints resume to the bit.

Muon is written out here, because `torch.optim.Muon` iterates in bfloat16, which CPUs without bfloat16 units
emulate: one step of a [2048, 512] matrix took 9.7 s on a 2-core EPYC, in float32 0.15 s. Ours does so on an
accelerator, and on a CPU that has such units where the training is in bfloat16 (`bf16: true`; four [640, 640] on one
core: 0.03 s for 0.17); a training in float32 gives the same numbers on every CPU. The stacked matrices of
GRU and LSTM, [gates * hidden, inputs], are orthogonalised whole; `split_gates=True` does it gate by gate (they are
different maps that torch only stores together), which sounds right and measured worse. A 2 x 128 character LSTM on
the King James Bible, 400 updates, bits per character on validation (two seeds each): at a learning rate of 0.01
whole 2.18, 2.18, by gate 2.23, 2.24, AdamW 2.63, 2.72; at 0.003 whole 2.98, 3.00, by gate 3.19, 3.19, AdamW 3.14,
3.24. Only these two rates were compared, not the best of each: try both when tuning.

Under FSDP2 a process holds some rows of a matrix, and an orthogonalised part is not the part of what is orthogonalised:
each update is gathered, and every process orthogonalises it whole and keeps its rows. DeepSpeed's ZeRO hands the
optimiser flat vectors of all parameters together, in which no matrix is left: refused (`strategy.py`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from ..models.processors import CPU_MULTIPLIES_BFLOAT16
from .averaging import NTASGD
from .sharded_weights import part_like, whole_tensor

# How many matrices torch stacks in `weight_ih_l0`, `weight_hh_l0`.
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
# Jordan et al. 2024: the quintic that moves singular values towards 1 fastest; five iterations leave them in
# about 0.7 ... 1.2, which trains as well as exactly 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; biases, norms and embeddings do not.

    The recurrent matrices (`weight_ih`, `weight_hh`) decay. A tied parameter appears once, and as an embedding.

    Returns:
        [{"params": [...], "weight_decay": weight_decay}, {"params": [...], "weight_decay": 0.0}], without empty groups.
    """
    embeddings = _embedding_ids(model)
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in _trainable(model):
        is_bias = name.rpartition(".")[2].startswith("bias")
        (plain if parameter.ndim < 2 or is_bias or id(parameter) in embeddings else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_adamw(
    model: nn.Module, *, lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:  # fmt: skip
    """AdamW over `parameter_groups`, in torch's fused form (one pass over the parameters, on CPUs too)."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=betas, eps=eps, fused=True)


def build_ntasgd(model: nn.Module, *, lr: float, weight_decay: float = 0.0, nonmono: int = 5) -> NTASGD:
    """NT-ASGD over all parameters; everything decays, as in the published AWD-LSTM. Needs `AveragedEvaluation`."""
    return NTASGD([p for _, p in _trainable(model)], lr=lr, weight_decay=weight_decay, nonmono=nonmono)


def build_muon(
    model: nn.Module, *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, split_gates: bool = False, bfloat16: bool = False,
) -> Muon:  # fmt: skip
    """Muon for the matrices inside the network, AdamW for the rest.

    Embeddings and the output layer are tables of words, one vector each, not maps: AdamW (Jordan et al. 2024).

    Args:
        bfloat16: orthogonalise in bfloat16 on a CPU, if it has the units; accelerators always do.

    Raises:
        ValueError: the model has no matrix for Muon.
    """
    gates = _gates(model) if split_gates else {}
    tables = _embedding_ids(model) | _output_ids(model)
    matrices: dict[int, list[nn.Parameter]] = {}
    for name, parameter in _trainable(model):
        if (
            parameter.ndim == 2
            and id(parameter) not in tables
            and not name.rpartition(".")[2].startswith("bias")
        ):
            matrices.setdefault(gates.get(id(parameter), 1), []).append(parameter)
    if not matrices:
        raise ValueError(
            f"{type(model).__name__} has no two-dimensional parameter besides embeddings and output layer, so nothing "
            "for Muon to do: choose optimizer 'adamw'."
        )
    taken = {id(p) for group in matrices.values() for p in group}
    groups: list[dict[str, Any]] = [
        {"params": params, "weight_decay": weight_decay, "gates": count, "momentum": momentum}
        for count, params in sorted(matrices.items())
    ]
    for group in parameter_groups(model, weight_decay):
        group["params"] = [p for p in group["params"] if id(p) not in taken]
        if group["params"]:
            groups.append({**group, "gates": 0, "betas": betas, "eps": eps})
    return Muon(groups, lr=lr, bfloat16=bfloat16)


class Muon(torch.optim.Optimizer):
    """Muon for groups with `gates` >= 1, AdamW for groups with `gates` == 0; made by `build_muon`.

    A matrix of `gates` >= 1 is [gates * rows, columns] and its gates are updated separately: momentum with Nesterov's
    correction, then the nearest (half-)orthogonal matrix, times 0.2 * sqrt(max(rows, columns)), which gives the update
    the root mean square of AdamW's.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, bfloat16: bool = False) -> None:
        super().__init__(groups, {"lr": lr})
        self.bfloat16_on_cpu = bfloat16 and CPU_MULTIPLIES_BFLOAT16
        plain = [group for group in self.param_groups if not group["gates"]]
        # The same group dictionaries: AdamW adds its own defaults to them, so they are saved and loaded with ours.
        self._adamw = torch.optim.AdamW(plain, lr=lr, fused=True) if plain else None

    @torch.no_grad()
    # torch declares two overloads, of which this is the one function.
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["gates"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, parameter.grad, group)
        if self._adamw is not None:
            # Loading replaces both, here and in accelerate's wrapper, so they are linked anew at every step.
            self._adamw.param_groups = [group for group in self.param_groups if not group["gates"]]
            self._adamw.state = self.state
            self._adamw.step()
        return loss

    def _update(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim != 2:
            raise ValueError(
                f"Muon was given a parameter of shape {list(parameter.shape)} for a matrix: what flattens parameters "
                "(DeepSpeed's ZeRO, FSDP version 1) does not go with it. Choose optimizer 'adamw', or shard with FSDP2."
            )
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"])
        update = whole_tensor(update).unflatten(0, (group["gates"], -1))  # [gates, rows, columns]
        scale = 0.2 * max(update.shape[1:]) ** 0.5
        in_bfloat16 = self.bfloat16_on_cpu or update.device.type != "cpu"
        update = part_like(orthogonalized(update, in_bfloat16).flatten(0, 1), parameter)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonalized(matrices: torch.Tensor, in_bfloat16: bool = False) -> torch.Tensor:
    """U V^T of each U S V^T in `matrices` [count, rows, columns], roughly: singular values in 0.7 ... 1.2.

    Newton-Schulz iteration, of float32 in bfloat16 if so wanted, else in the matrices' own type.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    if in_bfloat16 and x.dtype == torch.float32:
        x = x.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # so that no singular value exceeds 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


BUILDERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": build_adamw,
    "ntasgd": build_ntasgd,
    "muon": build_muon,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Of the builders' annotations: what a value is called, and whether it is one. torch looks at some of them in the first
# update only.
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "float": ("a number", _is_number),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "tuple[float, float]": (
        "two numbers",
        lambda value: isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)),
    ),
}


def optimizer_factory(name: str, args: TrainingArguments, **options: Any) -> tuple[Callable, dict[str, Any]]:
    """What `Trainer(optimizer_cls_and_kwargs=...)` takes, for the optimiser `name`.

    Args:
        name: "adamw", "ntasgd" or "muon".
        args: gives `learning_rate`, `weight_decay`, and for AdamW `adam_beta1`, `adam_beta2`, `adam_epsilon`
            (Trainer itself hands nothing on to a factory).
        options: more keywords of the builder, such as `momentum` (muon) or `nonmono` (ntasgd).

    Raises:
        ValueError: an unknown name or option, a value of another kind than the option's.
    """
    if name not in BUILDERS:
        raise ValueError(f"Unknown optimizer {name!r}: choose one of {', '.join(BUILDERS)}.")
    parameters = inspect.signature(BUILDERS[name]).parameters
    known = list(parameters)[1:]  # all but the model
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"The optimizer {name!r} has no argument {unknown[0]!r}: it knows {', '.join(known)}."
        )
    for option, value in options.items():
        kind, fits = KINDS[parameters[option].annotation]
        if not fits(value):
            raise ValueError(f"The optimizer {name!r}: {option} must be {kind}, not {value!r:.60}.")
    kwargs: dict[str, Any] = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    if name == "muon":
        kwargs["bfloat16"] = args.bf16
    if name != "ntasgd":
        kwargs |= {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    # Trainer calls factory() and then the result with (model, **kwargs).
    return (lambda: BUILDERS[name]), kwargs | options


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _embedding_ids(model: nn.Module) -> set[int]:
    return {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}


def _output_ids(model: nn.Module) -> set[int]:
    find = getattr(model, "get_output_embeddings", None)
    output = None if find is None else find()
    return set() if output is None else {id(p) for p in output.parameters()}


def _gates(model: nn.Module) -> dict[int, int]:
    """How many gates each stacked recurrent matrix holds, by the parameter's id."""
    return {
        id(parameter): GATES[module.mode]
        for module in model.modules()
        if isinstance(module, nn.RNNBase)
        for name, parameter in module.named_parameters(recurse=False)
        if name.startswith(("weight_ih", "weight_hh"))
    }
