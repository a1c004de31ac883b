"""Sums of LoRAs, and fewer ranks: exact where it can be, and with what was lost where it cannot.

Shape suffixes: O outputs, N inputs (of a convolution: times its height and width), R rank, S singular values.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ConfigError, ModelError
from .layers import Adapter, Layer, lora

ROUNDING = 1e-6
"""A share that is missed by less is reached: values are float32."""
LARGE = 512
"""Sides above this, with few ranks wanted, are taken apart by random projections (Halko et al. 2011) instead of in full."""
DYNAMIC = ("sv_fro", "sv_cumulative", "sv_ratio")
"""sd-scripts' words: a share of the length of what is added, a share of the sum of singular values, the largest through the smallest."""


@dataclass(frozen=True)
class Rule:
    """How many ranks a layer keeps: at most `rank`, and by `dynamic` no more than it needs for `value`."""

    rank: int | None = None
    dynamic: str | None = None
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.rank is None and self.dynamic is None:
            raise ConfigError(
                "says neither --rank nor --dynamic", where="lora", fix="--rank 16, or --dynamic sv_fro=0.95", case=1
            )
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"must be 1 or more, got {self.rank}", where="lora: --rank", case=1)
        if self.dynamic is not None and self.dynamic not in DYNAMIC:
            raise ConfigError(f"{self.dynamic!r} is not one of: {', '.join(DYNAMIC)}", where="lora: --dynamic", case=1)
        whole = self.dynamic in ("sv_fro", "sv_cumulative") and not 0 < self.value <= 1
        if whole or (self.dynamic == "sv_ratio" and self.value < 1):
            limits = "above 0 and at most 1" if whole else "1 or more"
            raise ConfigError(f"must be {limits}, got {self.value:g}", where=f"lora: --dynamic {self.dynamic}", case=1)

    def keeps(self, values_S: Tensor) -> int:
        """Of singular values, the largest first."""
        most = len(values_S) if self.rank is None else min(self.rank, len(values_S))
        if self.dynamic is None or not values_S.any():
            return most if self.dynamic is None else 1
        if self.dynamic == "sv_ratio":
            wanted = int((values_S >= values_S[0] / self.value).sum())
        else:
            measure_S = values_S.double().square() if self.dynamic == "sv_fro" else values_S.double()
            target = self.value**2 if self.dynamic == "sv_fro" else self.value
            shares_S = measure_S.cumsum(0) / measure_S.sum()
            wanted = int((shares_S < target - ROUNDING).sum()) + 1
        return max(1, min(most, wanted))


@dataclass(frozen=True)
class Cut:
    layer: Layer
    kept: float
    """Share of the length (Frobenius norm) of what is added that is left, 0..1."""
    length: float
    """That length before."""


def merge(adapters: Sequence[tuple[Adapter, float]]) -> Adapter:
    """The weighted sum, exactly: matrices side by side, ranks added up. Raises ModelError where there is no such sum."""
    names = dict.fromkeys(name for adapter, _ in adapters for name in adapter)
    return {name: added([(adapter[name], weight) for adapter, weight in adapters if name in adapter], name) for name in names}


def added(pairs: Iterable[tuple[Layer, float]], name: str) -> Layer:
    layers = []
    for layer, weight in pairs:
        if layer.kind != "lora":
            raise ModelError(
                f"{layer.kind} layers cannot be added up exactly", where=name, fix="extract a LoRA of it first", case=4
            )
        if layer.magnitude_O is not None:
            fix = "fold each into its base (`hfdk export --format merged`) and extract the difference"
            raise ModelError("a DoRA cannot be added up: its lengths are no sum", where=name, fix=fix, case=4)
        layers.append(layer.mapped(Tensor.float).scaled(weight))
    shapes = {(layer.up.shape[0], layer.down.shape[1:]) for layer in layers}
    if len(shapes) > 1:
        raise ModelError(f"are of different sizes at {name}", where="lora: merge", fix="merge LoRAs of one family", case=4)
    return lora(torch.cat([layer.down for layer in layers]), torch.cat([layer.up for layer in layers], dim=1))


def resized(layer: Layer, rule: Rule) -> Cut:
    """The nearest layer of fewer ranks (Eckart and Young 1936), by the singular values of the product, of which only the thin sides are
    ever taken apart."""
    if layer.kind != "lora":
        raise ModelError(f"{layer.kind} layers have no ranks to cut", case=4)
    work = layer.mapped(lambda tensor: tensor.double())
    down_RN, up_OR = work.down.flatten(1), work.up.flatten(1) * layer.scale
    if not (down_RN.any() and up_OR.any()):
        return Cut(layer, 1.0, 0.0)
    left_OR, first_RR = torch.linalg.qr(up_OR)
    right_NR, second_RR = torch.linalg.qr(down_RN.mT)
    u_RS, values_S, v_SR = torch.linalg.svd(first_RR @ second_RR.mT, full_matrices=False)
    rank = rule.keeps(values_S)
    made = balanced(left_OR @ u_RS[:, :rank], values_S[:rank], v_SR[:rank] @ right_NR.mT, layer)
    return Cut(replace(made, magnitude_O=layer.magnitude_O), share(values_S, rank), float(values_S.norm()))


def extracted(delta: Tensor, rule: Rule) -> Cut:
    """A difference of weights -> the nearest layer of that rank."""
    wide_ON = delta.flatten(1).float()
    total = float(wide_ON.double().norm())
    u_OS, values_S, v_SN = taken_apart(wide_ON, rule.rank)
    rank = rule.keeps(values_S)
    thin = torch.zeros(rank, *delta.shape[1:]), torch.zeros(len(delta), rank, *[1] * (delta.ndim - 2))
    made = balanced(u_OS[:, :rank], values_S[:rank], v_SN[:rank], lora(*thin))
    kept = float(values_S[:rank].double().norm()) / total if total else 1.0
    return Cut(made, min(1.0, kept), total)


def taken_apart(wide_ON: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(u_OS, values_S, v_SN), the same each time."""
    side = min(wide_ON.shape)
    if rank is None or side <= LARGE or rank * 4 >= side:
        return torch.linalg.svd(wide_ON, full_matrices=False)
    with torch.random.fork_rng(devices=[wide_ON.device] if wide_ON.is_cuda else []):
        torch.manual_seed(0)
        u_OS, values_S, v_NS = torch.svd_lowrank(wide_ON, q=min(side, 2 * rank + 8), niter=4)
    return u_OS, values_S, v_NS.mT


def balanced(u_OR: Tensor, values_R: Tensor, v_RN: Tensor, like: Layer) -> Layer:
    """As a LoRA of scale 1, in the shapes and the precision of `like`; the singular values shared by both matrices."""
    root_R = values_R.sqrt()
    down = (root_R[:, None] * v_RN).reshape(-1, *like.down.shape[1:])
    up = (u_OR * root_R).reshape(len(u_OR), -1, *like.up.shape[2:])
    return lora(down.to(like.down.dtype).contiguous(), up.to(like.up.dtype).contiguous())


def share(values_S: Tensor, rank: int) -> float:
    return float(values_S[:rank].norm() / values_S.norm())


def resize(adapter: Adapter, rule: Rule, *, tick: Callable[[], object] = bool) -> dict[str, Cut]:
    """Every layer at its new rank. `tick` is called after each."""
    cuts = {}
    for name, layer in adapter.items():
        cuts[name] = resized(layer, rule)
        tick()
    return cuts


def summary(cuts: Mapping[str, Cut]) -> dict[str, float | str | int]:
    """What was kept of all layers together, and where the most was lost."""
    before = sum(cut.length**2 for cut in cuts.values())
    after = sum((cut.length * cut.kept) ** 2 for cut in cuts.values())
    worst = min(cuts, key=lambda name: cuts[name].kept)
    shares = sorted(cut.kept for cut in cuts.values())
    return {
        "layers": len(cuts),
        "kept": (after / before) ** 0.5 if before else 1.0,
        "kept_median": shares[len(shares) // 2],
        "kept_worst": cuts[worst].kept,
        "worst_layer": worst,
        "error": (before - after) ** 0.5 if before > after else 0.0,
    }
