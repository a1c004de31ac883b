"""The optimizers by name: each a kept library's class, built with settings that fit adapters and diffusion models.

An optimizer's groups carry `name` (the part of the pipeline), `names` (of its parameters) and `base_lr` (the rate at factor 1).
"""

import contextlib
import importlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import ConfigError, unknown
from .layouts import keep_layouts
from .settings_optimizer import OptimizerSettings

EXTRAS = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedulefree": "schedulefree"}
"""Optimizer -> the package that has it; the extra of pyproject.toml is called as the optimizer is."""
FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which torch has AdamW as one kernel."""


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate."""

    name: str
    """The pipeline's name for the part."""
    parameters: Mapping[str, nn.Parameter]
    """Name within the part -> parameter, float32."""
    base_lr: float


def check(settings: OptimizerSettings) -> None:
    """Raises ConfigError for what is missing or contradicts itself. Imports nothing, so it can come before any work."""
    name = settings.optimizer
    if name not in BUILDERS:
        raise unknown("optimizer", name, BUILDERS, where="training: optimizer")
    if (package := EXTRAS.get(name)) and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{name} needs {package}, which is not installed",
            where="training: optimizer",
            fix=f'pip install "hf-diffusion-kit[{name}]"',
            case=2,
        )
    for beta in ("adam_beta1", "adam_beta2"):
        if getattr(settings, beta) >= 1:
            raise ConfigError(f"must be below 1, got {getattr(settings, beta)}", where=f"training: {beta}", case=1)
    if name == "prodigy" and settings.learning_rate < 0.01:
        fix = "set learning_rate = 1.0: prodigy finds the rate itself, and this scales what it finds"
        what = f"is {settings.learning_rate:g}, at which prodigy would hardly move"
        raise ConfigError(what, where="training: learning_rate", fix=fix, case=1)
    if name == "schedulefree" and settings.adam_beta1 == 0:
        raise ConfigError("must be above 0 for schedulefree, which divides by it", where="training: adam_beta1", case=1)
    if name == "schedulefree" and settings.ema_decay is not None:
        fix = "leave it out: schedulefree gives out an average of the weights already"
        raise ConfigError('does not go with optimizer = "schedulefree"', where="training: ema_decay", fix=fix, case=1)


def build(settings: OptimizerSettings, groups: Sequence[Group]) -> Optimizer:
    """A new optimizer at factor 1. Raises ConfigError as `check` does, and for rates that the optimizer cannot hold apart."""
    check(settings)
    rates = {group.base_lr for group in groups}
    if settings.optimizer == "prodigy" and len(rates) > 1:
        told = ", ".join(f"{group.name} {group.base_lr:g}" for group in groups)
        raise ConfigError(
            f"prodigy finds one rate for all parts, and they are given several ({told})",
            where="training: learning_rate",
            fix="leave out text_encoder_learning_rate and token_learning_rate",
            case=1,
        )
    parts = [
        {
            "params": list(group.parameters.values()),
            "names": list(group.parameters),
            "name": group.name,
            "base_lr": group.base_lr,
            "lr": group.base_lr,
        }
        for group in groups
    ]
    optimizer = BUILDERS[settings.optimizer](settings, parts)
    keep_layouts(optimizer)
    return optimizer


def set_rates(optimizer: Optimizer, factor_by_group: Mapping[str, float]) -> None:
    """Rate of each group = its base rate * its factor. A part that must not move has to lose its gradients: a rate of 0 is not enough
    for optimizers that average weights or have momentum left."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor_by_group[group["name"]]


def mode(optimizer: Optimizer, training: bool) -> None:
    """Schedule-free: weights for the next step, or weights to give out. There and back is not exact: see `at_rest`. Others: nothing."""
    if _averages(optimizer):
        switch: Any = optimizer
        if training:
            switch.train()
        else:
            switch.eval()


@contextmanager
def at_rest(optimizer: Optimizer) -> Iterator[None]:
    """Inside, the weights are those to give out (validation, samples, files); afterwards they are as before, bit for bit."""
    turned = [group for group in optimizer.param_groups if group.get("train_mode")]
    if not _averages(optimizer) or not turned:
        yield
        return
    kept = [(p, p.detach().clone()) for group in turned for p in group["params"]]
    mode(optimizer, training=False)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)
        for group in turned:
            group["train_mode"] = True


def notes(settings: OptimizerSettings) -> list[str]:
    """What a user should know of these settings, a sentence each."""
    told, name = [], settings.optimizer
    if name == "prodigy" and settings.learning_rate != 1:
        told.append(
            f"prodigy finds the rate itself and wants learning_rate = 1.0; {settings.learning_rate:g} scales what it finds"
        )
    if name == "schedulefree" and settings.lr_scheduler != "constant":
        told.append(f"schedulefree averages instead of lowering the rate; lr_scheduler = {settings.lr_scheduler} lowers it too")
    fields = OptimizerSettings.__dataclass_fields__
    idle = ("adam_beta1", "adam_beta2", "adam_epsilon") if name == "adafactor" else ()
    if set_by_hand := [field for field in idle if getattr(settings, field) != fields[field].default]:
        told.append(f"{name} has no use for {', '.join(set_by_hand)}")
    return told


def _averages(optimizer: Optimizer) -> bool:
    return type(optimizer).__name__ == "AdamWScheduleFree"


# One function an optimizer


def _adamw(settings: OptimizerSettings, parts: list[dict[str, Any]]) -> Optimizer:
    devices = {parameter.device.type for part in parts for parameter in part["params"]}
    fused = devices <= set(FUSED)
    return torch.optim.AdamW(parts, fused=fused, foreach=not fused, **_adam(settings))


def _adamw8bit(settings: OptimizerSettings, parts: list[dict[str, Any]]) -> Optimizer:
    """Tensors of 4096 values and more keep their moments in 8 bits (Dettmers et al. 2022)."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)  # on a CPU it misses a kernel that has to do with 4-bit products only
    try:
        library = importlib.import_module("bitsandbytes")
    finally:
        logger.setLevel(level)
    return library.optim.AdamW8bit(parts, **_adam(settings))


def _adafactor(settings: OptimizerSettings, parts: list[dict[str, Any]]) -> Optimizer:
    """Row and column sums instead of second moments (Shazeer & Stern 2018).

    Steps are scaled by max(eps2, size of the tensor): with torch's 1e-3 an adapter, which starts at 0, would hardly move. With 1 the
    rate means what it means for AdamW (`scale_parameter=False` elsewhere). torch's eps1, the float's own 1e-7, is above the
    mean squares of diffusion gradients and would flatten them; 1e-18 is below all of them and its square is still a float.
    """
    return torch.optim.Adafactor(parts, lr=settings.learning_rate, eps=(1e-18, 1.0), weight_decay=settings.adam_weight_decay)


def _prodigy(settings: OptimizerSettings, parts: list[dict[str, Any]]) -> Optimizer:
    """Finds its own rate (Mishchenko & Defazio 2023); bias correction and safeguarded warm-up as in diffusers' scripts."""
    library = importlib.import_module("prodigyopt")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and standard output may be JSON
        return library.Prodigy(parts, use_bias_correction=True, safeguard_warmup=True, **_adam(settings))


def _schedulefree(settings: OptimizerSettings, parts: list[dict[str, Any]]) -> Optimizer:
    """Averages the weights instead of lowering the rate (Defazio et al. 2024). Its own warm-up is left at 0: rates come from outside."""
    return importlib.import_module("schedulefree").AdamWScheduleFree(parts, **_adam(settings))


def _adam(settings: OptimizerSettings) -> dict[str, Any]:
    return {
        "lr": settings.learning_rate,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_epsilon,
        "weight_decay": settings.adam_weight_decay,
    }


BUILDERS: dict[str, Callable[[OptimizerSettings, list[dict[str, Any]]], Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "adafactor": _adafactor,
    "prodigy": _prodigy,
    "schedulefree": _schedulefree,
}
