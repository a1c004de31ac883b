from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, positive, share


@dataclass(frozen=True)
class PictureSettings:
    """How pictures and captions are shown to the model."""

    resolution: tuple[int, ...] | None = None
    """Pixels of the training pictures: one number for a square, or height and width. None takes the base's own."""
    buckets: bool = False
    """Train each picture near its own aspect ratio, at about the area of `resolution`, instead of cropping all to one shape."""
    bucket_step: int = 64
    """Sides of buckets are multiples of so many pixels."""
    bucket_min_side: int | None = None
    """Shortest side of a bucket; None takes half of the resolution."""
    bucket_max_side: int | None = None
    """Longest side of a bucket; None takes twice the resolution."""
    bucket_upscale: bool = True
    """Enlarge pictures that are smaller than their bucket; without it they get a smaller bucket."""
    crop: Literal["center", "random", "smart"] = "center"
    """Which part is kept where a picture does not fit: the middle, one of a few fixed windows anew in each epoch, or the part that matters."""
    random_crops: int = 4
    """How many windows `crop = "random"` chooses from; each is encoded once."""
    random_flip: bool = False
    """Mirror a picture in half of its epochs. Not for text, digits or faces with a parting."""
    caption: Literal["random", "first", "longest", "shortest"] = "random"
    """Which of a picture's captions is used: `random` goes through all of them, one an epoch."""
    caption_dropout: float = 0.0
    """Share of samples whose caption is left empty, so that guidance keeps its unconditional half (Ho & Salimans 2022)."""
    caption_shuffle: bool = False
    """Shuffle a caption's comma-separated tags, anew each time it is shown."""
    caption_keep: int = 0
    """The first so many tags keep their place when the others are shuffled."""
    caption_template: str | None = None
    """What the model is given, with `{caption}` where the caption goes; an empty caption stays empty."""
    mask: Literal["no", "alpha", "files"] = "no"
    """Learn only part of each picture: where it is opaque, or where its file in `mask_path` is white."""
    mask_path: str | None = None
    """Folder of masks, `<name of the picture>.png`."""
    unmasked_weight: float = 0.0
    """Weight of the part that the mask leaves out."""

    def __post_init__(self) -> None:
        where = "training"
        positive(where, bucket_step=self.bucket_step, bucket_min_side=self.bucket_min_side, random_crops=self.random_crops)
        positive(where, bucket_max_side=self.bucket_max_side)
        share(where, caption_dropout=self.caption_dropout, unmasked_weight=self.unmasked_weight)
        if self.caption_keep < 0:
            raise ConfigError(f"must be 0 or more, got {self.caption_keep}", where=f"{where}: caption_keep", case=1)
        if self.caption_template is not None and "{caption}" not in self.caption_template:
            raise ConfigError(
                "has no {caption} in it", where=f"{where}: caption_template", fix='e.g. "a photo of {caption}"', case=1
            )
        if (self.mask == "files") != (self.mask_path is not None):
            raise ConfigError('mask = "files" and mask_path go together', where=f"{where}: mask", fix="set both, or none", case=1)
        if self.resolution is not None and (len(self.resolution) not in (1, 2) or min(self.resolution) < 8):
            raise ConfigError(
                f"must be one number of pixels, or height and width; got {self.resolution}", where=f"{where}: resolution", case=1
            )
