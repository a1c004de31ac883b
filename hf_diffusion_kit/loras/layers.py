"""An adapter as layers: which layer of which part, and the small matrices that are added to its weight.

Shape suffixes: O outputs, I inputs, R rank, N a convolution's inputs times its height and width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import ModelError

Kind = Literal["lora", "loha", "lokr"]
DOWN, UP = "lora_down.weight", "lora_up.weight"
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


@dataclass(frozen=True)
class Layer:
    tensors: Mapping[str, Tensor]
    """By the names of kohya's sd-scripts and LyCORIS: `lora_down.weight` and `lora_up.weight`, `hada_w1_a` ..., `lokr_w1` ..."""
    alpha: float
    """What is added is scaled by alpha / rank."""
    magnitude_O: Tensor | None = None
    """DoRA: the length that each row of base and addition together is brought to (Liu et al. 2024)."""

    @property
    def kind(self) -> Kind:
        if DOWN in self.tensors:
            return "lora"
        return "loha" if "hada_w1_a" in self.tensors else "lokr"

    @property
    def down(self) -> Tensor:
        """RI, or of a convolution RI and its height and width."""
        return self.tensors[DOWN]

    @property
    def up(self) -> Tensor:
        """OR, or OR11."""
        return self.tensors[UP]

    @property
    def rank(self) -> int | None:
        """None of a LoKr that is held whole, without thin matrices: alpha means nothing there."""
        if self.kind == "lora":
            return self.down.shape[0]
        found = [self.tensors[name] for name in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b") if name in self.tensors]
        return found[0].shape[0] if found else None

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def count(self) -> int:
        """Numbers that it is made of."""
        return sum(tensor.numel() for tensor in self.tensors.values()) + (
            0 if self.magnitude_O is None else len(self.magnitude_O)
        )

    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """ON or OI and a convolution's sides: what is added to the weight, before a DoRA's lengths; reshape it to the weight."""
        told = {name: tensor.to(dtype) for name, tensor in self.tensors.items()}
        if self.kind == "lora":
            wide = told[UP].flatten(1) @ told[DOWN].flatten(1)
            return (wide * self.scale).reshape(len(wide), *told[DOWN].shape[1:])
        return (loha(told) if self.kind == "loha" else lokr(told)) * self.scale

    def onto(self, weight: Tensor) -> Tensor:
        """The weight with this layer folded in, in the weight's own precision; worked out in float32."""
        base = weight.float()
        whole = base + self.delta().to(base.device).reshape(base.shape)
        if self.magnitude_O is not None:
            lengths_O = whole.flatten(1).norm(dim=1)
            factor_O = self.magnitude_O.to(base) / lengths_O
            whole = whole * factor_O.reshape(-1, *[1] * (whole.ndim - 1))
        return whole.to(weight.dtype)

    def scaled(self, factor: float) -> "Layer":
        """The same with its answer times `factor`: the scale in its matrices, alpha the rank."""
        if self.kind != "lora":
            raise ModelError(f"a {self.kind} layer is not scaled", case=4)
        up = self.up if factor * self.scale == 1 else (self.up.float() * (factor * self.scale)).to(self.up.dtype)
        return replace(self, tensors={DOWN: self.down, UP: up}, alpha=float(self.down.shape[0]))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Layer":
        """Every tensor changed: cast, moved, copied."""
        length = None if self.magnitude_O is None else change(self.magnitude_O)
        return replace(self, tensors={name: change(tensor) for name, tensor in self.tensors.items()}, magnitude_O=length)


Adapter = dict[str, Layer]
"""`unet.down_blocks.0.attentions.0.proj_in` -> layer: the pipeline's name of the part, then the layer's name within it as diffusers and
transformers have it, CLIP's with `text_model.` before."""


def lora(down: Tensor, up: Tensor, alpha: float | None = None, magnitude: Tensor | None = None) -> Layer:
    """`alpha` None: the rank, a scale of 1. A magnitude of any shape is taken as one number a row."""
    return Layer(
        {DOWN: down, UP: up}, float(len(down)) if alpha is None else alpha, None if magnitude is None else magnitude.flatten()
    )


def part_of(name: str) -> str:
    return name.partition(".")[0]


def loha(told: Mapping[str, Tensor]) -> Tensor:
    """The elementwise product of two low-rank products (FedPara, Hyeon-Woo et al. 2022); for convolutions perhaps with a core each."""
    if "hada_t1" in told:
        sides = [core(told[f"hada_t{i}"], told[f"hada_w{i}_b"], told[f"hada_w{i}_a"]) for i in (1, 2)]
        return sides[0] * sides[1]
    return (told["hada_w1_a"] @ told["hada_w1_b"]) * (told["hada_w2_a"] @ told["hada_w2_b"])


def lokr(told: Mapping[str, Tensor]) -> Tensor:
    """The Kronecker product of a small and a larger matrix, either perhaps of low rank (LyCORIS, Yeh et al. 2024)."""
    first = told["lokr_w1"] if "lokr_w1" in told else told["lokr_w1_a"] @ told["lokr_w1_b"]
    if "lokr_w2" in told:
        second = told["lokr_w2"]
    elif "lokr_t2" in told:
        second = core(told["lokr_t2"], told["lokr_w2_b"], told["lokr_w2_a"])
    else:
        second = told["lokr_w2_a"] @ told["lokr_w2_b"]
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second)


def core(core_RRHW: Tensor, in_RI: Tensor, out_RO: Tensor) -> Tensor:
    """OIHW of a convolution in Tucker's form."""
    return torch.einsum("ijkl,jr,ip->prkl", core_RRHW, in_RI, out_RO)
