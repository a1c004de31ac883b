"""What a run ran on, for its record."""

import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

NAMED = ("hf-diffusion-kit", "torch", "diffusers", "transformers", "peft", "datasets", "huggingface_hub", "safetensors", "Pillow")


def pick_device(name: str | None) -> torch.device:
    """`cuda`, `mps` or `cpu`; None takes the fastest there is."""
    if name:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def hardware(device: torch.device) -> dict[str, Any]:
    """Kind of processor, threads, and the most memory that was in use (bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    told: dict[str, Any] = {
        "device": device.type,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }
    if device.type == "cuda":
        told |= {"gpu": torch.cuda.get_device_name(device), "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device)}
    return told


def versions() -> dict[str, str]:
    told = {"python": platform.python_version()}
    for name in NAMED:
        try:
            told[name] = version(name)
        except PackageNotFoundError:  # the kit itself, run from a checkout
            told[name] = "checkout"
    return told
