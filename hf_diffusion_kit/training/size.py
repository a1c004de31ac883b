from ..errors import ConfigError
from ..families import Family
from .settings import TrainSettings


def training_size(family: Family, settings: TrainSettings) -> tuple[int, int]:
    """Height and width in pixels: as set, or as the base was made. Raises ConfigError when the family cannot take them."""
    height, width = (settings.resolution * 2)[:2] if settings.resolution else (family.native_size, family.native_size)
    if height % family.divides or width % family.divides:
        raise ConfigError(
            f"{height}x{width} cannot be trained; both must be multiples of {family.divides}",
            where="training: resolution",
            case=1,
        )
    return height, width
