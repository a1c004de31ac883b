"""A frozen denoiser in fewer bits, with an adapter in float32 upon it (QLoRA, Dettmers et al. 2023)."""

from importlib.util import find_spec
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, TorchAoConfig

from ..errors import ConfigError, unknown

LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}
WHERE = "training: quantize"


def quantization(kind: str, part: str, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of `from_pretrained` that open one part in fewer bits; none for `no`.

    Linear layers only: convolutions keep `dtype`. Raises ConfigError where the library is missing or the machine cannot.
    """
    if kind == "no":
        return {}
    if kind not in LIBRARIES:
        raise unknown("quantization", kind, ("no", *LIBRARIES), where=WHERE)
    library = LIBRARIES[kind]
    if find_spec(library) is None:
        fix = f'pip install "hf-diffusion-kit[{kind}]", or quantize = "no"'
        raise ConfigError(f"{kind} needs {library}, which is not installed", where=WHERE, fix=fix, case=2)
    try:
        config = nf4(dtype) if kind == "nf4" else int8()
    except ImportError as error:  # it is there, and does not go with this torch
        raise ConfigError(f"{library} cannot be loaded: {error}", where=WHERE, fix='quantize = "no"', case=2) from error
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping={part: config})}


def int8() -> Any:
    """One scale a row, by torchao; runs on CPU and GPU."""
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def nf4(dtype: torch.dtype) -> Any:
    """Four bits spaced as a normal distribution wants them, by bitsandbytes, which diffusers lets work on a GPU only."""
    if not (torch.cuda.is_available() or torch.xpu.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("nf4 needs a GPU, and there is none here", where=WHERE, fix='quantize = "int8" or "no"', case=2)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
