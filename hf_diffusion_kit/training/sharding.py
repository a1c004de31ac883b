"""One denoiser over several devices: each keeps 1/N of its weights, gradients, moments and averages (FSDP2; Zhao et al. 2023).

A block's weights are put together where it is computed, and let go again; its gradients are averaged and shared out at once. What is kept
is torch's DTensor; here is what the rest of this room asks of one.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..methods import Method
from .processes import Processes
from .settings import TrainSettings

if TYPE_CHECKING:
    from .trainer import Trainer

WHERE = "training: fsdp"
OPTIMIZERS = ("adamw", "schedulefree")
"""They look at each value by itself, so that a share of a weight is treated as it is in the whole."""


def wanted(settings: TrainSettings, processes: Processes) -> bool:
    """One process alone has nobody to share with: `notes` says so."""
    return settings.fsdp and processes.world > 1


def check(settings: TrainSettings, method: Method) -> None:
    """Before any work. Raises ConfigError for what cannot be shared out, or would not come out as in one process."""
    if not settings.fsdp:
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            fix = "set training.fsdp = true, or start without --use_fsdp"
            raise ConfigError("is not set, and accelerate was told to use FSDP", where=WHERE, fix=fix, case=1)
        return
    if not method.name.endswith("full"):
        what = f"shares out a denoiser that is trained whole, and {method.name} trains little beside it"
        fix = 'leave it out (several processes share each step without it; quantize = "int8" makes a large base smaller), or method = "full"'
        raise ConfigError(what, where=WHERE, fix=fix, case=1)
    if settings.optimizer not in OPTIMIZERS:
        fix = f"optimizer = {' or '.join(OPTIMIZERS)}"
        raise ConfigError(f"does not go with {settings.optimizer}, which looks at a whole weight", where=WHERE, fix=fix, case=1)
    if settings.mixed_precision == "fp16":
        raise ConfigError("does not go with fp16", where=WHERE, fix='mixed_precision = "bf16" or "no"', case=1)


def aside(run: "Trainer") -> None:
    """Before the method casts weights to float32, which no device need hold whole: the denoiser waits in the machine's memory."""
    check(run.settings, run.method)
    if wanted(run.settings, run.processes):
        run.family.model.to("cpu")


def begin(run: "Trainer") -> nn.Module | None:
    """Shares the denoiser out, once its method has adapted it. Returns it without weights, to be filled at the end; None where
    nothing is shared."""
    family, settings = run.family, run.settings
    if not wanted(settings, run.processes):
        return None
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if family.teacher is not None:
        family.teacher.model.to(run.device)
    model = family.model
    hollow = emptied(model)
    mesh = init_device_mesh(run.device.type, (run.processes.world,))
    # Inputs stay as they are: time and geometry are numbers that bfloat16 would round.
    half = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if settings.mixed_precision == "bf16" else {}
    policy = MixedPrecisionPolicy(**half, cast_forward_inputs=False)
    # One at a time comes to the device. Also the outermost lets go after each pass: nothing may answer from before a step.
    for module in (*blocks(model), model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    parameters = dict(model.named_parameters())
    run.trained = [replace(one, parameters=parameters) if one.part == family.denoiser else one for one in run.trained]
    return hollow


def blocks(model: nn.Module) -> list[nn.Module]:
    """What a model repeats, by its own word; inner ones first."""
    names = {*(getattr(model, "_no_split_modules", None) or ()), *(getattr(model, "_repeated_blocks", None) or ())}
    return [module for module in reversed(list(model.modules())) if type(module).__name__ in names and module is not model]


def emptied(model: nn.Module) -> nn.Module:
    """A copy with parameters that take no memory."""
    shapes = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in model.parameters()}
    return deepcopy(model, shapes)


def finish(run: "Trainer") -> None:
    """For good, after the last step: the denoiser whole again in rank 0, in the base's precision. All must call it."""
    if run.hollow is None:
        return
    family = run.family
    run.optimizer.state.clear()
    for name, parameter in family.model.named_parameters():
        part = whole(parameter).to(family.dtype)  # one at a time; the others drop it at once
        if run.processes.main:
            owner, _, last = name.rpartition(".")
            setattr(run.hollow.get_submodule(owner), last, nn.Parameter(part, requires_grad=False))
    if run.processes.main:
        setattr(family.pipe, family.denoiser, run.hollow)
    run.hollow = None


# What the rest of the room asks of a tensor that may be shared out


def is_shared(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """This process's share, in the same memory; all of a tensor that is not shared out."""
    shared: Any = tensor
    return shared.to_local() if is_shared(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All processes must ask, and in the same order."""
    shared: Any = tensor.detach()
    return shared.full_tensor() if is_shared(tensor) else shared


def gathered(tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Whole tensors, for rank 0 to write: put together one by one, so that no device ever holds them all. What is shared out is left
    out elsewhere."""
    told = {}
    for name, tensor in tensors.items():
        full = whole(tensor) if is_shared(tensor) else tensor
        if processes.main or not is_shared(tensor):
            told[name] = full.cpu() if is_shared(tensor) else full
    return told


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Copies a whole tensor into one, or this process's share of it into its own."""
    if is_shared(target):
        from torch.distributed.tensor import distribute_tensor

        told: Any = target
        value = distribute_tensor(value.to(target.device), told.device_mesh, told.placements, src_data_rank=None)
    local(target).copy_(local(value))


def clip(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Shortens gradients to the length `most` all together, over all shares; returns the length they had."""
    parameters = list(parameters)
    grads = [p.grad for p in parameters if p.grad is not None]
    if not any(is_shared(grad) for grad in grads):
        return torch.nn.utils.clip_grad_norm_(parameters, most)
    squares = [_length([local(grad) for grad in grads if is_shared(grad) == shared], grads[0]) ** 2 for shared in (True, False)]
    torch.distributed.all_reduce(squares[0])
    length = (squares[0] + squares[1]).sqrt()
    torch._foreach_mul_([local(grad) for grad in grads], (most / (length + 1e-6)).clamp(max=1.0))
    return length


def _length(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.nn.utils.get_total_norm(tensors) if tensors else torch.zeros((), device=like.device)
