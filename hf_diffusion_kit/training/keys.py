"""Keys of the cache: all that can change what VAE, text encoder or mask say. Never a file's name, a place in the set or a step."""

from importlib.metadata import version

import torch

from ..data.pixels import Crop, Geometry

CODE = 2
"""Raised by hand whenever `data/pixels.py`, `Family.posterior`, `Family.encode_captions` or `masks.py` come to answer otherwise."""
LIBRARIES = ("torch", "diffusers", "transformers", "Pillow")

Key = tuple[object, ...]


def origin(family: str, base: str, dtype: torch.dtype, device: torch.device) -> Key:
    """Who answers. `base`: its identity, a sha256 that changes whenever its weights do. Libraries, device, a CPU's threads and the
    precision of matrix products are in it, for they decide the last bits, and a run must not depend on which run came before it."""
    libraries = tuple(f"{name} {version(name)}" for name in LIBRARIES)
    there = device.type == "cuda" and torch.cuda.is_available()
    kind = torch.cuda.get_device_name(device) if there else torch.get_num_threads()
    return (CODE, family, base, str(dtype), device.type, kind, torch.get_float32_matmul_precision(), *libraries)


def picture_key(origin: Key, sha256: str, crop: Crop) -> Key:
    """For the VAE's answer. `sha256` is the picture's."""
    return ("picture", *origin, sha256, crop.size, crop.corner, crop.flip)


def caption_key(origin: Key, text: str, geometry: Geometry | None) -> Key:
    """For the text encoders' answer. `geometry`: None where the family's conditioning does not depend on it."""
    return ("caption", *origin, text, geometry)


def mask_key(mark: str, crop: Crop, divisor: int) -> Key:
    """For a mask at the latents' size. `mark` is that of `Masks.mark`."""
    return ("mask", CODE, mark, crop.size, crop.corner, crop.flip, divisor)


def place_key(finder: str, sha256: str, size: tuple[int, int]) -> Key:
    """For the place of a smart crop. `finder` is the name and version that `crops.need_smart` tells."""
    return ("place", CODE, finder, sha256, size)
