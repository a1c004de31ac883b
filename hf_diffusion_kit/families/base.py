"""What every model family answers. One file a family; families never import each other.

Shape suffixes in this room: B batch, C latent channels, H W latent height and width, R G pixel height and width, S tokens, D features.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from torch import Generator, Tensor, nn

from ..errors import FamilyError, ModelError
from ..objectives import Objective
from .quiet import quiet_loading

Conditioning = dict[str, Tensor]
"""Everything the denoiser is told beside the latents; every value is batch-first, so that a cache can cut it up."""


@dataclass(frozen=True)
class Posterior:
    """What the VAE says of pictures, in the denoiser's units: latents are mean + std * noise, drawn afresh at each step."""

    mean_BCHW: Tensor
    std_BCHW: Tensor

    def draw(self, generator: Generator) -> Tensor:
        noise_BCHW = torch.randn(self.mean_BCHW.shape, generator=generator).to(self.mean_BCHW)
        return self.mean_BCHW + self.std_BCHW * noise_BCHW


@dataclass(frozen=True)
class TokenCount:
    """How a caption fared at the tokenizer, start and end marks included."""

    seen: int
    cut: int
    """Tokens beyond the model's length; the model never sees them."""


class Family(ABC):
    name: ClassVar[str]
    pipeline_class: ClassVar[type[Any]]
    denoiser: ClassVar[str]
    """The pipeline's attribute that is trained: `unet` or `transformer`."""
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    text_lora_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    left_out: ClassVar[dict[str, Any]] = {}
    """Arguments of `from_pretrained` that leave out parts which play no role in training."""
    divides: ClassVar[int] = 8
    """Height and width in pixels must be multiples of this."""

    def __init__(self, pipe: Any):
        if not isinstance(pipe, self.pipeline_class):
            raise FamilyError(f"{self.name!r} opens a {self.pipeline_class.__name__}, got a {type(pipe).__name__}", case=3)
        self.pipe = pipe
        for part in (self.denoiser, "vae", *self.text_encoders):
            getattr(pipe, part).requires_grad_(False)
        self.dtype = next(self.model.parameters()).dtype  # the base's; adapters come in float32

    @classmethod
    def pipeline(cls, base: str | Path, *, revision: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
        """A stock pipeline of a Hub id or a folder in the diffusers layout; safetensors only. Raises ModelError in one line."""
        try:
            folder = base if Path(base).is_dir() else cls.pipeline_class.download(base, revision=revision, use_safetensors=True)
            with quiet_loading():
                return cls.pipeline_class.from_pretrained(folder, dtype=dtype, use_safetensors=True, **cls.left_out)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise opening_failed(base, error) from error

    @classmethod
    def open(cls, base: str | Path, *, revision: str | None = None, dtype: torch.dtype = torch.float32) -> "Family":
        """The family of that pipeline."""
        return cls(cls.pipeline(base, revision=revision, dtype=dtype))

    @property
    def model(self) -> nn.Module:
        return getattr(self.pipe, self.denoiser)

    def part(self, name: str) -> nn.Module:
        """The denoiser, or one of the text encoders, by the pipeline's name for it."""
        return getattr(self.pipe, name)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def latent_size_divisor(self) -> int:
        """Pixels a latent."""
        return int(self.pipe.vae_scale_factor)

    @property
    def native_size(self) -> int:
        """Side in pixels of the pictures that the base was made for."""
        config: Any = self.model.config
        return int(config.sample_size) * self.latent_size_divisor

    @torch.no_grad()
    def posterior(self, pixels_B3RG: Tensor) -> Posterior:
        """Pixels in [-1, 1] -> where their latents lie, in the units that the denoiser was trained on."""
        vae = self.pipe.vae
        moments = vae.encode(pixels_B3RG.to(vae.device, vae.dtype)).latent_dist
        scale, shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0
        return Posterior(((moments.mean - shift) * scale).float(), (moments.std * scale).float())

    def encode_images(self, pixels_B3RG: Tensor, generator: Generator) -> Tensor:
        """latents_BCHW in the denoiser's units, float32."""
        return self.posterior(pixels_B3RG).draw(generator)

    @abstractmethod
    def objective(self, **options: Any) -> Objective: ...

    @abstractmethod
    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        """geometry: original height, width; crop top, left; target height, width (pixels). Carries gradients to the text side."""

    @abstractmethod
    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        """The denoiser's answer, in the same layout as `noisy`. The one call that carries gradients to the denoiser."""

    @abstractmethod
    def count_tokens(self, caption: str) -> TokenCount:
        """What the tokenizer makes of a caption, and what falls off its end."""

    def to(self, device: torch.device, *, encoders: bool) -> None:
        """Moves the denoiser to `device`, and VAE and text encoders too, or out of its memory."""
        self.model.to(device)
        for name in ("vae", *self.text_encoders):
            self.part(name).to(device if encoders else "cpu")


def class_name_of(base: str | Path, *, revision: str | None = None) -> str:
    try:
        config = DiffusionPipeline.load_config(base, revision=revision)
    except (OSError, ValueError) as error:
        raise opening_failed(base, error) from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise ModelError("names no stock pipeline class", where=f"{base}: model_index.json", case=1)
    return name


def opening_failed(base: str | Path, error: BaseException) -> ModelError:
    folder = Path(base)
    said = " ".join(str(error).split())[:240]
    if folder.is_dir():
        return ModelError(f"cannot be opened: {said}", where=base, fix="name a folder in the diffusers layout", case=2)
    fix = f"check the id and the network; to have it at hand offline: hf download {base}"
    return ModelError(f"cannot be opened: {said}", where=base, fix=fix, case=5)
