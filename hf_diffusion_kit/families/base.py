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
from ..objectives import Ddpm, Flow, Objective, options_for, randn_like
from .opening import REFUSED, Origin, opening_failed
from .quantized import quantization
from .quiet import quiet_loading
from .shift import flows, scheduler_shift
from .targets import TEXT, UNET, linear_ends, named

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
    text_encoders: tuple[str, ...] = ("text_encoder",)
    """In the order of `tokenizers`. Of an instance: those that its pipeline has."""
    tokenizers: tuple[str, ...] = ("tokenizer",)
    may_lack: ClassVar[tuple[str, ...]] = ()
    """Text encoders that people leave out to save memory; the pipeline then does without."""
    trains_text_encoders: tuple[str, ...] | None = None
    """Text encoders that can be trained and written so that stock readers have them; None: all."""
    learns_words: ClassVar[bool] = False
    """Whether new words can be taught (textual inversion) and read back by the stock pipeline."""
    most_tokens: ClassVar[dict[str, int]] = {}
    """Tokenizer -> how many tokens of a caption are read, where that is not its own length."""
    guidance_argument: ClassVar[str] = "guidance_scale"
    """What the pipeline's call names classifier-free guidance."""
    no_guidance: ClassVar[float] = 1.0
    """Value of that argument at which nothing is guided."""
    call_options: ClassVar[dict[str, Any]] = {}
    """Arguments of the pipeline's call, beside the usual ones, with which a picture is drawn as training saw it."""
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = UNET
    """Name -> ends of the names of the denoiser's layers that a LoRA may adapt; `all-linear` is worked out from the model."""
    text_target_presets: ClassVar[dict[str, tuple[str, ...]]] = TEXT
    left_out: ClassVar[dict[str, Any]] = {}
    """Arguments of `from_pretrained` that leave out parts which play no role in training."""
    reads_geometry: ClassVar[bool] = False
    """Whether the conditioning depends on the picture's size and crop, beside its caption."""
    patch: ClassVar[int] = 1
    """Side in latents of the patches that `predict` makes of them, where the denoiser's own `patch_size` does not say so."""

    def __init__(self, pipe: Any, *, origin: Origin | None = None, quantize: str = "no"):
        """`origin`: where the pipeline was opened, so that parts of it may be let go; None keeps what is there in memory."""
        if not isinstance(pipe, self.pipeline_class):
            raise FamilyError(f"{self.name!r} opens a {self.pipeline_class.__name__}, got a {type(pipe).__name__}", case=3)
        sides = zip(type(self).text_encoders, type(self).tokenizers, strict=True)
        there = [pair for pair in sides if pair[0] not in self.may_lack or getattr(pipe, pair[0], None) is not None]
        self.text_encoders, self.tokenizers = (tuple(names) for names in zip(*there, strict=True))
        trainable = self.trains_text_encoders
        self.trains_text_encoders = tuple(p for p in self.text_encoders if trainable is None or p in trainable)
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
    def divides(self) -> int:
        """Height and width in pixels must be multiples of this."""
        return max(8, self.latent_size_divisor * self.patch_size)

    @property
    def patch_size(self) -> int:
        """Side in latents of what the denoiser sees as one place."""
        config: Any = self.model.config
        return max(self.patch, int(config.get("patch_size") or 1))

    @property
    def native_size(self) -> int:
        """Side in pixels of the pictures that the base was made for."""
        config: Any = self.model.config
        return int(config.sample_size) * self.latent_size_divisor

    def usual_call(self) -> tuple[int, float]:
        """(solver steps, guidance) with which pictures of this base are drawn when nothing else is said."""
        return 25, 7.5

    def targets(self, preset: str, part: str) -> tuple[str, ...]:
        """Ends of the names of a part's layers that a preset adapts, as `Lora.targets` takes them. Raises ConfigError."""
        presets = self.text_target_presets if part in self.text_encoders else self.target_presets
        if preset not in presets:
            raise unknown("preset", preset, presets, where="method: targets")
        return named(self.part(part), presets[preset]) or linear_ends(self.part(part))

    @torch.no_grad()
    def posterior(self, pixels_B3RG: Tensor) -> Posterior:
        """Pixels in [-1, 1] -> where their latents lie, in the units that the denoiser was trained on."""
        vae = self.pipe.vae
        with encoding(vae):
            mean_BCHW, std_BCHW = (told.float() for told in self.moments(pixels_B3RG.to(vae.device, vae.dtype)))
        shift, scale = (torch.as_tensor(value, device=mean_BCHW.device) for value in self.latent_units())
        return Posterior((mean_BCHW - shift) * scale, std_BCHW * scale)

    def moments(self, pixels_B3RG: Tensor) -> tuple[Tensor, Tensor]:
        """(mean_BCHW, std_BCHW) as the VAE says them, in its own units."""
        told = self.pipe.vae.encode(pixels_B3RG).latent_dist
        return told.mean, told.std

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
        if flows(scheduler):
            return Flow(self.base_shift, **options_for(Flow, options))
        if not hasattr(scheduler, "alphas_cumprod"):  # EDM's, for one
            raise FamilyError(f"is noised by a {type(scheduler).__name__}, and no objective here does that", case=3)
        return Ddpm(scheduler.alphas_cumprod, scheduler.config.prediction_type, **options_for(Ddpm, options))

    def base_shift(self, height: int, width: int) -> float:
        """Of flow matching: the shift with which the base's scheduler draws pictures of that latent size."""
        return scheduler_shift(self.pipe.scheduler.config, self.tokens_of(height, width))

    def tokens_of(self, height: int, width: int) -> int:
        """How many places the denoiser sees of latents of that size."""
        return (height // self.patch_size) * (width // self.patch_size)

    @abstractmethod
    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        """geometry: original height, width; crop top, left; target height, width (pixels). Carries gradients to the text side.

        An empty caption is what the pipeline takes for its unconditional half, so that dropped captions train just that.
        """

    @abstractmethod
    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        """The denoiser's answer, in the same layout as `noisy`. The one call that carries gradients to the denoiser."""

    def count_tokens(self, caption: str) -> TokenCount:
        """What the tokenizer makes of a caption, and what falls off its end and no text encoder sees: of several tokenizers the longest,
        of equally long ones the one that cuts most."""
        lengths = self.lengths()
        longest = [name for name, length in lengths.items() if length == max(lengths.values())]
        return max((self._count(name, caption, lengths[name]) for name in longest), key=lambda told: told.cut)

    def lengths(self) -> dict[str, int]:
        """Tokenizer -> how many tokens of a caption are read."""
        return {name: self.most_tokens.get(name, getattr(self.pipe, name).model_max_length) for name in self.tokenizers}

    def _count(self, name: str, caption: str, length: int) -> TokenCount:
        tokenizer = getattr(self.pipe, name)
        if isinstance(self.pipe, TextualInversionLoaderMixin):  # a learnt word may be several tokens
            caption = self.pipe.maybe_convert_prompt(caption, tokenizer)
        whole = self.tokenized(tokenizer, caption)
        return TokenCount(min(whole, length), max(0, whole - length))

    @classmethod
    def tokenized(cls, tokenizer: Any, caption: str) -> int:
        """How many tokens a caption is, with all that the pipeline's call says around it, when nothing is cut."""
        return len(tokenizer(caption, truncation=False, verbose=False).input_ids)

    # What is in memory

    def compute_twice(self, way: Callable[..., Any]) -> None:
        """Gradient checkpointing (Chen et al. 2016): layers keep their inputs and are computed anew on the way back, through `way`."""
        self.model.enable_gradient_checkpointing(way)  # type: ignore[operator]

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
    half = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
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
    trim_memory()


def trim_memory() -> None:
    """What glibc keeps of freed tensors goes back to the system."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
