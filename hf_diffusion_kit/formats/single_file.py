"""One file in the layout of the original Stable Diffusion checkpoints, as ComfyUI and the WebUIs take it: SD 1.x and SDXL.

Shape suffixes: O outputs, I inputs.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ModelError
from ..families import Family
from ..families.quiet import quiet_loading
from ..loras import sgm
from .base import Format, Written, check, folded, rooted, save

FILE = "model.safetensors"
CLIP = {"sd1": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
"""Family -> before the names of its first text encoder, which go by transformers' names."""
OPEN_CLIP = "conditioner.embedders.1.model."
"""Before those of SDXL's second, which go by OpenCLIP's."""
ARCHITECTURE = {"sd1": "stable-diffusion-v1", "sdxl": "stable-diffusion-xl-v1-base"}
VAE_TOP = {"conv_norm_out": "norm_out", "mid_block.attentions.0": "mid.attn_1"}
VAE_BLOCK = re.compile(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
TEXT_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
TEXT = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


class SingleFile(Format):
    """`model.safetensors` with U-Net, VAE and text encoders, adapters folded in. Scheduler and tokenizers are not in it: a reader takes
    those of the base (`config`), so what training changed of the scheduler is lost to others."""

    name: ClassVar[str] = "single-file"
    whole: ClassVar[bool] = True

    @classmethod
    def takes(cls, family: type[Family]) -> bool:
        return family.name in CLIP

    def write(self, family: Family, folder: Path) -> Written:
        if family.name not in CLIP:
            fix = "--format merged writes the whole pipeline in diffusers' layout"
            raise ModelError(
                f"is written of {' and '.join(CLIP)} alone, not of a {family.name}", where="single-file", fix=fix, case=4
            )
        if family.quantize != "no":
            raise ModelError(f"the base was opened in fewer bits ({family.quantize})", where=folder, fix="quantize = no", case=4)
        if words := [word for told in family.learned.values() for word in told] or added(family):
            fix = "--format merged keeps them; or export the LoRA and the words apart"
            raise ModelError(f"has no room for the new words {', '.join(words)}", where="single-file", fix=fix, case=4)
        family.recall()
        try:
            tensors = collected(family)
        except ModelError:
            raise
        except ValueError as error:  # float16 ends at 65504
            raise ModelError(f"cannot be folded in: {error}", where=folder, case=2) from error
        check(tensors, folder / FILE, adapter=False)
        told = {"modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": ARCHITECTURE[family.name]}
        save(tensors, folder / FILE, **told)
        return Written((folder / FILE,), f'.from_single_file(FOLDER / "{FILE}", config=BASE)')

    def add(self, pipe: Any, folder: Path) -> None:
        raise ModelError("is a checkpoint by itself, and goes onto no pipeline", where=folder, case=4)

    def read(self, family: type[Family], base: str | Path, folder: Path, *, revision: str | None, dtype: torch.dtype) -> Any:
        """By diffusers, with tokenizers and scheduler of the base."""
        more = {name: value for name, value in family.left_out.items() if name not in ("image_encoder", "feature_extractor")}
        with quiet_loading():
            config = {"config": str(base), "revision": revision, "local_files_only": Path(base).is_dir()}
            pipe = family.pipeline_class.from_single_file(str(folder / FILE), torch_dtype=dtype, **config, **more)
        return pipe


def added(family: Family) -> list[str]:
    """Words that the tokenizers were taught."""
    told: dict[str, None] = {}
    for name in family.tokenizers:
        tokenizer = getattr(family.pipe, name)
        told |= {word: None for word in tokenizer.get_added_vocab() if word not in tokenizer.all_special_tokens}
    return list(told)


def collected(family: Family) -> dict[str, Tensor]:
    """Every tensor of the checkpoint by its name there."""
    pipe = family.pipe
    blocks = sgm.Blocks.of(pipe.unet.config)
    told = renamed(folded(pipe.unet), "model.diffusion_model.", lambda name: sgm.original(name, blocks))
    levels = len(pipe.vae.config.block_out_channels)
    told |= renamed(pipe.vae, "first_stage_model.", lambda name: in_vae(name, levels))
    for name, tensor in list(told.items()):
        if name.startswith("first_stage_model.") and ".mid.attn_1." in name and tensor.ndim == 2:
            told[name] = tensor[:, :, None, None]  # a convolution there
    first = folded(pipe.text_encoder).state_dict()
    told |= {f"{CLIP[family.name]}{rooted('text_encoder', key)}": tensor for key, tensor in first.items()}
    if family.name == "sdxl":
        told |= open_clip(folded(pipe.text_encoder_2))
    return told


def renamed(part: Any, start: str, change: Callable[[str], str]) -> dict[str, Tensor]:
    """A part's tensors, each layer by another name."""
    told = {}
    for key, tensor in part.state_dict().items():
        name, _, kind = key.rpartition(".")
        told[f"{start}{change(name)}.{kind}"] = tensor
    return told


def in_vae(name: str, levels: int) -> str:
    """Blocks on the way up are counted from the other end."""
    if (found := VAE_BLOCK.fullmatch(name)) is not None:
        side, block, kind, place, rest = found.groups()
        at = int(block) if side == "encoder.down" else levels - 1 - int(block)
        if kind != "resnets":
            return f"{side}.{at}.{'down' if kind == 'downsamplers' else 'up'}sample.{rest}"
        return f"{side}.{at}.block.{place}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
    side, _, rest = name.partition(".")
    if rest.startswith("mid_block.resnets."):
        number, _, inner = rest.removeprefix("mid_block.resnets.").partition(".")
        return f"{side}.mid.block_{int(number) + 1}.{inner}"
    if rest.startswith("mid_block.attentions.0."):
        return f"{side}.mid.attn_1.{VAE_ATTENTION[rest.removeprefix('mid_block.attentions.0.')]}"
    return f"{side}.{VAE_TOP[rest]}" if rest in VAE_TOP else name


def open_clip(part: Any) -> dict[str, Tensor]:
    """OpenCLIP holds query, key and value in one matrix, one below the other, and its projection the other way round."""
    told: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Tensor]] = {}
    for key, tensor in part.state_dict().items():
        name = key.removeprefix("text_model.")
        if (found := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", name)) is not None:
            rows.setdefault(f"transformer.resblocks.{found[1]}.attn.in_proj_{found[3]}", {})[found[2]] = tensor
        else:
            told[in_open_clip(name)] = tensor.T if name == "text_projection.weight" else tensor
    told |= {name: torch.cat([sides[x] for x in "qkv"]) for name, sides in rows.items()}
    return {f"{OPEN_CLIP}{name}": tensor for name, tensor in told.items()}


OPEN_CLIP_TOP: Mapping[str, str] = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}


def in_open_clip(name: str) -> str:
    if name in OPEN_CLIP_TOP:
        return OPEN_CLIP_TOP[name]
    found = TEXT_BLOCK.fullmatch(name)
    layer, _, kind = found[2].rpartition(".") if found else ("", "", "")
    if found is None or layer not in TEXT:
        raise ModelError(f"original checkpoints have no name for {name}", where="text_encoder_2", case=4)
    return f"transformer.resblocks.{found[1]}.{TEXT[layer]}.{kind}"
