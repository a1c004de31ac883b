"""The small trained matrices beside a frozen layer: which kind, how large, and what peft is told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peft import LoHaConfig, LoKrConfig, LoraConfig, OFTConfig
from torch import nn

from ..errors import ConfigError, nearest, positive, share

NO_MEANING = {"alpha": ("oft",), "rslora": ("loha", "lokr", "oft"), "dora": ("loha", "lokr", "oft"), "dropout": ("oft",)}
"""Setting -> adapters that have nothing like it. peft takes a dropout for OFT and never applies it (0.21)."""


@dataclass(frozen=True)
class AdapterSettings:
    adapter: Literal["lora", "loha", "lokr", "oft"] = "lora"
    """lora: a product of two thin matrices is added to the weight (Hu et al. 2022). loha: the elementwise product of two such products
    (FedPara, Hyeon-Woo et al. 2022). lokr: a Kronecker product, the smallest file (LyCORIS, Yeh et al. 2024). oft: the input is
    rotated, nothing is added (Qiu et al. 2023). All but lora are read by peft, not by `load_lora_weights`."""
    rank: int = 16
    """Columns of the thin matrices; for oft the side of each rotated block. File size grows with it, in proportion."""
    alpha: float | None = None
    """The adapter's answer is scaled by alpha / rank. None takes the rank: a scale of 1."""
    dropout: float = 0.0
    """lora: share of the adapter's inputs that is zeroed while training. loha, lokr: of the rows of what is added to the weight."""
    rslora: bool = False
    """lora: scale by alpha / sqrt(rank) instead (Kalajdzievski 2023), so that large ranks keep learning."""
    dora: bool = False
    """lora: a length for each output row beside the low-rank direction (DoRA, Liu et al. 2024)."""

    def __post_init__(self) -> None:
        positive("method", rank=self.rank, alpha=self.alpha)
        share("method", dropout=self.dropout)
        for name, kinds in NO_MEANING.items():
            if self.adapter in kinds and getattr(self, name):
                fix = f"leave out {name}, or choose another adapter"
                raise ConfigError(f"means nothing for {self.adapter}", where=f"method: {name}", fix=fix, case=1)

    def peft_config(self, targets: Sequence[str]) -> Any:
        """What `add_adapter` takes."""
        told, alpha = {"target_modules": list(targets)}, self.rank if self.alpha is None else self.alpha
        if self.adapter == "lora":
            more = {"lora_alpha": alpha, "lora_dropout": self.dropout, "use_rslora": self.rslora, "use_dora": self.dora}
            return LoraConfig(r=self.rank, **more, **told)
        if self.adapter == "oft":  # the exact Cayley transform: what is rotated keeps its length
            return OFTConfig(r=0, oft_block_size=self.rank, use_cayley_neumann=False, **told)
        kind = LoHaConfig if self.adapter == "loha" else LoKrConfig
        return kind(r=self.rank, alpha=alpha, rank_dropout=self.dropout, **told)

    def check_layers(self, model: nn.Module, part: str, targets: Sequence[str]) -> None:
        """Raises ConfigError for a target that no layer of the part has, or that this adapter cannot take, before anything is trained."""
        layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
        for target in targets:
            if not any(ends(name, target) for name in layers):
                known = {last_words(name) for name in layers}
                raise ConfigError(
                    f"{target!r} is no layer of the {part}; {nearest(target, known)}", where="method: targets", case=4
                )
        if self.adapter == "oft":
            self._check_oft({name: layer for name, layer in layers.items() if any(ends(name, target) for target in targets)})

    def _check_oft(self, layers: dict[str, nn.Linear | nn.Conv2d]) -> None:
        for name, layer in layers.items():
            # peft 0.21 adds up overlapping patches there: the untrained adapter is no longer the identity.
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                fix = 'preset = "all-linear", or another adapter'
                raise ConfigError(f"oft cannot rotate {name}, a convolution", where="method: targets", fix=fix, case=4)
        widths = {
            name: layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features for name, layer in layers.items()
        }
        for name, width in widths.items():
            if width % self.rank:
                common = math.gcd(*widths.values())
                fit = max(size for size in range(1, self.rank + 1) if common % size == 0)
                fix = f"rank = {fit}" if fit > 1 else "leave that layer out of the targets"
                raise ConfigError(
                    f"{name} is {width} wide, which blocks of {self.rank} do not fill", where="method: rank", fix=fix, case=4
                )


def ends(name: str, target: str) -> bool:
    """Whether peft takes a layer of this name for that target."""
    return name == target or name.endswith(f".{target}")


def last_words(name: str) -> str:
    """The end of a layer's name by which it can be named: its last word, with the one before where it is a number."""
    words = name.split(".")
    return ".".join(words[-2:]) if words[-1].isdigit() else words[-1]
