from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, positive
from .settings_noise import NoiseSettings
from .settings_optimizer import OptimizerSettings
from .settings_pictures import PictureSettings
from .settings_watch import WatchSettings


@dataclass(frozen=True)
class TrainSettings(WatchSettings, NoiseSettings, OptimizerSettings, PictureSettings):
    """Section `[training]`; names and defaults are those of diffusers' own scripts where they have one."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 1
    """Pictures at once, a process; with prior preservation as many class pictures come beside them."""
    gradient_accumulation_steps: int = 1
    """Batches whose gradients are averaged before a step."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Base weights and arithmetic in bfloat16 or float16, trained weights in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them: less memory, about 1.4 times the time."""
    fsdp: bool = False
    """With several processes each keeps its share alone of the denoiser's weights, gradients, moments and averages (FSDP2), for models
    too large for one device. For methods that train it whole. The losses are those of one process, to rounding."""
    quantize: Literal["no", "int8", "nf4"] = "no"
    """Keep the frozen denoiser in fewer bits. For large ones; it costs time."""
    disk_cache: bool = True
    """Keep what VAE and text encoders said on disk, for the next run on the same pictures."""
    seed: int = 0

    def __post_init__(self) -> None:
        for part in (WatchSettings, NoiseSettings, OptimizerSettings, PictureSettings):
            part.__post_init__(self)
        positive("training", steps=self.steps, batch_size=self.batch_size)
        positive("training", gradient_accumulation_steps=self.gradient_accumulation_steps)
        if self.seed < 0:
            raise ConfigError(f"must be 0 or more, got {self.seed}", where="training: seed", case=1)
