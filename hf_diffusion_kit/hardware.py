"""What a run ran on, for its record."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .errors import ConfigError

NAMED = ("hf-diffusion-kit", "torch", "diffusers", "transformers", "peft", "datasets", "huggingface_hub", "safetensors", "Pillow")


def pick_device(name: str | None) -> torch.device:
    """`cuda` (or `cuda:1`), `mps` or `cpu`; None takes the fastest there is. Raises ConfigError for one that is not here."""
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *here]
    if name is not None and name not in here:
        raise ConfigError(f"{name!r} is not here; here is: {', '.join(here)}", where="base: device", case=1)
    return torch.device(name or here[0])


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


def checkout_commit() -> str | None:
    """The kit's own git commit; None when it is installed rather than run from a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or not its owner
        return None
    return done.stdout.strip() or None


def versions() -> dict[str, str]:
    told = {"python": platform.python_version()}
    for name in NAMED:
        try:
            told[name] = version(name)
        except PackageNotFoundError:  # the kit itself, run from a checkout
            told[name] = "checkout"
    return told
