"""What an optimizer remembers, as tensors for safetensors and plain numbers for JSON, and back again to the bit.

Settings (betas, decay, rates) are not part of it: a resumed run has those that it was given. torch's own `state_dict` mixes the two, and
loading one keeps the old rate; libraries keep counts and sums among a group's settings, where tensors cannot go.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import CheckpointError
from .layouts import laid_out_as
from .sharding import is_shared, put

IN_GROUPS = {
    "Prodigy": ("k", "d", "d_max", "d_hat", "d_numerator", "d_denom"),
    "AdamWScheduleFree": ("k", "weight_sum", "lr_max", "scheduled_lr", "train_mode"),
}
"""Class -> what it remembers among the settings of a group."""


def state_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(`part.parameter.key` -> tensor, everything else as JSON). Tensors are the optimizer's own: write them before the next step."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    same: dict[str, str] = {}
    seen: dict[Any, str] = {}
    for full, parameter, _ in _named(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            name = f"{full}.{key}"
            if not isinstance(value, Tensor):
                numbers[name] = value
            elif is_shared(value):
                tensors[name] = value.detach()
            elif (first := seen.setdefault((value.data_ptr(), value.shape, value.dtype), name)) != name and value.numel():
                same[name] = first  # bitsandbytes gives all parameters one table, which safetensors refuses to write twice
            else:
                tensors[name] = value.detach()
    kind = type(optimizer).__name__
    kept = IN_GROUPS.get(kind, ())
    groups = {group["name"]: {key: group[key] for key in kept if key in group} for group in optimizer.param_groups}
    return tensors, {"optimizer": kind, "numbers": numbers, "same": same, "groups": groups}


def load_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Puts back what `state_tensors` gave, into an optimizer newly built for the same groups. Raises CheckpointError for another's."""
    kind = type(optimizer).__name__
    if plain["optimizer"] != kind:
        fix = "put training.optimizer back, or start anew in another folder"
        raise CheckpointError(f"holds the state of {plain['optimizer']}, not of {kind}", where="optimizer", fix=fix, case=4)
    parameters = {full: (parameter, group) for full, parameter, group in _named(optimizer)}
    told: dict[str, Any] = {**tensors, **plain["numbers"]}
    moved: dict[str, Tensor] = {}
    fresh: dict[Tensor, dict[str, Any]] = {}
    for name in (*told, *plain["same"]):
        full, key = name.rsplit(".", 1)
        if full not in parameters:
            raise CheckpointError(f"holds the state of {full}, which is not trained here", where="optimizer", case=4)
        parameter, group = parameters[full]
        if name in plain["same"]:
            value: Any = moved[plain["same"][name]]
        elif isinstance(value := told[name], Tensor):
            value = moved[name] = _placed(value, key, parameter, group, kind)
        fresh.setdefault(parameter, {})[key] = value
    groups = {group["name"]: group for group in optimizer.param_groups}
    if groups.keys() != plain["groups"].keys():
        raise CheckpointError(
            f"holds the groups {', '.join(plain['groups'])}, not {', '.join(groups)}", where="optimizer", case=4
        )
    optimizer.state.clear()
    optimizer.state.update(fresh)
    for name, kept in plain["groups"].items():
        groups[name].update(kept)


def _named(optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            yield f"{group['name']}.{name}", parameter, group


def _placed(value: Tensor, key: str, parameter: nn.Parameter, group: Mapping[str, Any], kind: str) -> Tensor:
    """A copy where and how the optimizer itself would have put it: torch counts steps on the CPU unless its kernel reads them."""
    if is_shared(parameter) and value.shape == parameter.shape:
        share = torch.empty_like(parameter.detach(), dtype=value.dtype)
        put(share, value)
        return share
    on_cpu = key == "step" and not (group.get("fused") or group.get("capturable"))
    copy = torch.empty_like(value, device="cpu" if on_cpu else parameter.device, memory_format=torch.contiguous_format).copy_(
        value
    )
    if value.shape == parameter.shape and kind != "AdamW8bit":
        return laid_out_as(parameter, copy)
    return copy
