"""All randomness is a function of (seed, names): nothing about its history is ever saved, so a resumed run is the same run."""

import hashlib

import torch
from torch import Generator


def number(*parts: object) -> int:
    """A 63-bit number drawn from what it is for; the same on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def stream(seed: int, *parts: object) -> Generator:
    """A generator on the CPU for one purpose, e.g. `stream(seed, step, micro, "noise")`."""
    return Generator().manual_seed(number(seed, *parts))


def order(seed: int, epoch: int, count: int, name: str) -> list[int]:
    """Each of `count` pictures once, shuffled anew in each epoch."""
    return torch.randperm(count, generator=stream(seed, name, "order", epoch)).tolist()


def reseed(device: torch.device, seed: int) -> None:
    """Sets the streams that layers draw from on their own, and no others: `torch.manual_seed` asks every kind of device there may ever
    be, and notes for those that are not there which stack it was called from, which takes longer than the noise of a step."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
