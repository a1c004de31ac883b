"""What every model family answers. One file a family; families never import each other.

Shape suffixes in this room: B batch, C latent channels, H W latent height and width, R G pixel height and width, S tokens, D features.
"""

import ctypes
import gc
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from torch import Generator, Tensor, nn

from ..errors import FamilyError, unknown
from ..objectives import Ddpm, Objective, randn_like
from .opening import REFUSED, Origin, opening_failed
from .quantized import quantization
from .quiet import quiet_loading
from .targets import TEXT, UNET, linear_ends

Conditioning = dict[str, Tensor]
"""Everything the denoiser is told beside the latents; every value is batch-first, so that a cache can cut it up."""


@dataclass(frozen=True)
class Posterior:
    """What the VAE says of pictures, in the denoiser's units: latents are mean + std * noise, drawn afresh at each step."""

    mean_BCHW: Tensor
    std_BCHW: Tensor

    def draw(self, generators: Sequence[Generator]) -> Tensor:
        """latents_BCHW, a sample from each generator."""
        return self.mean_BCHW + self.std_BCHW * randn_like(self.mean_BCHW, generators)


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
    tokenizers: ClassVar[tuple[str, ...]] = ("tokenizer",)
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = UNET
    """Name -> ends of the names of the denoiser's layers that a LoRA may adapt; `all-linear` is worked out from the model."""
    text_target_presets: ClassVar[dict[str, tuple[str, ...]]] = TEXT
    lora_targets: ClassVar[tuple[str, ...]] = UNET["attention"]
    text_lora_targets: ClassVar[tuple[str, ...]] = TEXT["attention"]
    left_out: ClassVar[dict[str, Any]] = {}
    """Arguments of `from_pretrained` that leave out parts which play no role in training."""
    reads_geometry: ClassVar[bool] = False
    """Whether the conditioning depends on the picture's size and crop, beside its caption."""
    divides: ClassVar[int] = 8
    """Height and width in pixels must be multiples of this."""

    def __init__(self, pipe: Any, *, origin: Origin | None = None, quantize: str = "no"):
        """`origin`: where the pipeline was opened, so that parts of it may be let go; None keeps what is there in memory."""
        if not isinstance(pipe, self.pipeline_class):
            raise FamilyError(f"{self.name!r} opens a {self.pipeline_class.__name__}, got a {type(pipe).__name__}", case=3)
        for part in (self.denoiser, "vae", *self.text_encoders):
            if getattr(pipe, part, None) is None:
                raise FamilyError(f"has no {part}, without which a {self.name} cannot be trained", case=3)
        if not self.accepts(lambda part: getattr(pipe, part).config):
            raise FamilyError(f"is a {type(pipe).__name__} of another family than {self.name}", case=3)
        self.pipe, self.origin, self.quantize = pipe, origin, quantize
        for part in (self.denoiser, "vae", *self.text_encoders):
            getattr(pipe, part).requires_grad_(False)
        self.dtype = next(self.model.parameters()).dtype  # the base's; adapters come in float32
        self.learned: dict[str, dict[str, Tensor]] = {}
        """Text encoder -> new word -> its rows, float32: what a method taught the tokenizers, once it has settled."""
        self.teacher: Family | None = None
        """The same pipeline with frozen copies of what is trained, for a method that holds it to what it answered before."""
        self._untouched = {part: marks(self.part(part)) for part in ("vae", *self.text_encoders)}
        self._released: list[str] = []

    @classmethod
    def accepts(cls, config: Callable[[str], Mapping[str, Any]]) -> bool:
        """Whether a pipeline of this class is of this family; `config("unet")` is what that part's config.json says."""
        return True

    @classmethod
    def pipeline(
        cls, base: str | Path, *, revision: str | None = None, dtype: torch.dtype = torch.float32, quantize: str = "no"
    ) -> Any:
        """A stock pipeline of a Hub id or a folder in the diffusers layout; safetensors only.

        `quantize`: int8 or nf4 for the denoiser. Raises ModelError or ConfigError in one line.
        """
        return cls._opened(base, revision, dtype, quantize)[0]

    @classmethod
    def open(
        cls, base: str | Path, *, revision: str | None = None, dtype: torch.dtype = torch.float32, quantize: str = "no"
    ) -> "Family":
        """The family of that pipeline."""
        pipe, folder = cls._opened(base, revision, dtype, quantize)
        return cls(pipe, origin=Origin(folder, dtype), quantize=quantize)

    @classmethod
    def _opened(cls, base: str | Path, revision: str | None, dtype: torch.dtype, quantize: str) -> tuple[Any, Path]:
        more = {**quantization(quantize, cls.denoiser, dtype), **cls.left_out}
        try:
            folder = Path(base)
            if not folder.is_dir():  # what is left out is not fetched either
                folder = Path(cls.pipeline_class.download(base, revision=revision, use_safetensors=True, **cls.left_out))
            with quiet_loading():
                return cls.pipeline_class.from_pretrained(folder, dtype=dtype, use_safetensors=True, **more), folder
        except REFUSED as error:
            raise opening_failed(base, error) from error

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

    def targets(self, preset: str, part: str) -> tuple[str, ...]:
        """Ends of the names of a part's layers that a preset adapts, as `Lora.targets` takes them. Raises ConfigError."""
        presets = self.text_target_presets if part in self.text_encoders else self.target_presets
        if preset not in presets:
            raise unknown("preset", preset, presets, where="method: targets")
        return presets[preset] or linear_ends(self.part(part))

    @torch.no_grad()
    def posterior(self, pixels_B3RG: Tensor) -> Posterior:
        """Pixels in [-1, 1] -> where their latents lie, in the units that the denoiser was trained on."""
        vae = self.pipe.vae
        with encoding(vae):
            moments = vae.encode(pixels_B3RG.to(vae.device, vae.dtype)).latent_dist
            mean_BCHW, std_BCHW = moments.mean.float(), moments.std.float()
        shift, scale = (torch.as_tensor(value, device=mean_BCHW.device) for value in self.latent_units())
        return Posterior((mean_BCHW - shift) * scale, std_BCHW * scale)

    def latent_units(self) -> tuple[Tensor | float, Tensor | float]:
        """(shift, scale): the denoiser's latents are (what the VAE says - shift) * scale."""
        config = self.pipe.vae.config
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor

    def encode_images(self, pixels_B3RG: Tensor, generators: Sequence[Generator]) -> Tensor:
        """latents_BCHW in the denoiser's units, float32."""
        return self.posterior(pixels_B3RG).draw(generators)

    def objective(self, **options: Any) -> Objective:
        """How the base's own scheduler noises: as in Ddpm, where a family does not say otherwise. Raises FamilyError, ConfigError."""
        scheduler = self.pipe.scheduler
        if not hasattr(scheduler, "alphas_cumprod"):  # EDM's, for one
            raise FamilyError(f"is noised by a {type(scheduler).__name__}, and no objective here does that", case=3)
        return Ddpm(scheduler.alphas_cumprod, scheduler.config.prediction_type, **options)

    @abstractmethod
    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        """geometry: original height, width; crop top, left; target height, width (pixels). Carries gradients to the text side.

        An empty caption is what the pipeline takes for its unconditional half, so that dropped captions train just that.
        """

    @abstractmethod
    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        """The denoiser's answer, in the same layout as `noisy`. The one call that carries gradients to the denoiser."""

    def count_tokens(self, caption: str) -> TokenCount:
        """What the tokenizer makes of a caption, and what falls off its end; of several tokenizers the one that cuts most."""
        return max((self._count(getattr(self.pipe, name), caption) for name in self.tokenizers), key=lambda told: told.cut)

    def _count(self, tokenizer: Any, caption: str) -> TokenCount:
        if isinstance(self.pipe, TextualInversionLoaderMixin):  # a learnt word may be several tokens
            caption = self.pipe.maybe_convert_prompt(caption, tokenizer)
        whole = len(tokenizer(caption, truncation=False, verbose=False).input_ids)
        return TokenCount(min(whole, tokenizer.model_max_length), max(0, whole - tokenizer.model_max_length))

    # What is in memory

    @property
    def can_release(self) -> bool:
        """Whether parts can be let go and opened again: true of a family that was opened from files."""
        return self.origin is not None

    def release(self, *, keep: Collection[str] = ()) -> tuple[str, ...]:
        """Lets VAE and text encoders go, but those to `keep`, and returns the names of those that went; `recall` has them again.

        A part that is trained, or is no longer what the files say, stays where it is. Without files the others move to the CPU.
        """
        left = {name: known for name, known in self._untouched.items() if name not in keep and name not in self._released}
        untouched = [name for name, known in left.items() if marks(self.part(name)) == known]
        for name in untouched:
            self.part(name).to("meta" if self.can_release else "cpu")
        self._released += untouched
        if untouched:
            tidy_memory(self.device)
        return tuple(untouched)

    def recall(self) -> None:
        """All parts on the denoiser's device again, those that were let go from the same files in the same precision."""
        for name in self._released:
            part = self.part(name)
            if self.origin is not None:
                part = self.origin.part(name, type(part)).requires_grad_(False)
                setattr(self.pipe, name, part)
                self._untouched[name] = marks(part)
            part.to(self.device)
        self._released = []

    def let_go(self) -> None:
        """The pipeline is not needed any more."""
        device = self.device
        self.pipe, self.teacher, self.learned, self._untouched = None, None, {}, {}
        tidy_memory(device)

    def to(self, device: torch.device, *, encoders: bool) -> None:
        """Moves the denoiser to `device`, and VAE and text encoders too (`recall`ed where they are gone), or out of its memory."""
        self.model.to(device)
        if encoders:
            self.recall()
        for name in ("vae", *self.text_encoders):
            if name not in self._released:
                self.part(name).to(device if encoders else "cpu")


def plain_unet(config: Mapping[str, Any]) -> bool:
    """Whether a U-Net is asked latents, time and text: not a picture to paint into (9 channels), nor a guidance scale (LCM)."""
    return config.get("in_channels", 4) == 4 and config.get("time_cond_proj_dim") is None


def marks(part: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What changes when a part does: parameters that were exchanged, wrapped, enlarged, written to, cast, or are to be trained.

    torch counts how often a tensor was written to; moving it to a device does not count, nor does a cast that is taken back.
    """
    return {name: (id(p), p._version, p.shape, p.dtype, p.requires_grad) for name, p in part.named_parameters()}


@contextmanager
def encoding(vae: Any) -> Iterator[None]:
    """In float16 most VAEs leave its range; they say so (`force_upcast`), and pipelines decode with them in float32. So encode we."""
    half = vae.dtype == torch.float16 and vae.config.force_upcast
    if half:
        vae.float()
    try:
        with torch.autocast(vae.device.type, enabled=False):  # the answer is the same wherever it is asked
            yield
    finally:
        if half:
            vae.half()  # exact: every value came from there


def tidy_memory(device: torch.device) -> None:
    """What is free goes back to the system: Python, torch and glibc each keep it for later, a base's encoders 0.5 GB."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
