import warnings
from pathlib import Path
from typing import Any, ClassVar

from peft import PeftModel
from torch import Tensor

from ..errors import ModelError
from ..families import Family
from .base import Format, Written, adapter_of, adapter_state, check, save, save_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TOLD = (
    *("peft_type", "peft_version", "r", "target_modules", "rank_pattern", "alpha_pattern", "bias"),
    *("lora_alpha", "lora_dropout", "use_rslora", "use_dora", "init_lora_weights"),
    *("alpha", "rank_dropout", "module_dropout", "use_effective_conv2d", "init_weights", "decompose_both", "decompose_factor"),
    *("oft_block_size", "coft", "eps", "block_share", "use_cayley_neumann"),
)
"""Fields of peft's configurations that say what the weights are; the rest is left to the reader's defaults."""


class Peft(Format):
    """A folder a part (`unet`, `text_encoder` ...) with peft's two files: the one stock form of LoHa, LoKr and OFT."""

    name: ClassVar[str] = "peft"

    def write(self, family: Family, folder: Path) -> Written:
        found: dict[str, dict[str, Tensor]] = {}
        for part in (family.denoiser, *family.text_encoders):
            if adapter := adapter_of(family.part(part)):
                state = adapter_state(family.part(part), adapter[0])
                found[part] = {f"base_model.model.{key}": value for key, value in state.items()}
        check({f"{part}.{key}": value for part, state in found.items() for key, value in state.items()}, folder)
        files = []
        for part, state in found.items():
            told = adapter_of(family.part(part))
            (folder / part).mkdir(exist_ok=True)
            save(state, folder / part / WEIGHTS)
            save_json(config(told[1]) if told else {}, folder / part / CONFIG)
            files += [folder / part / WEIGHTS, folder / part / CONFIG]
        calls = [f'PeftModel.from_pretrained(pipe.{part}, FOLDER, subfolder="{part}")' for part in found]
        return Written(tuple(files), " + ".join([".from_pretrained(BASE)", *calls]))

    def add(self, pipe: Any, folder: Path) -> None:
        """peft works in place: the pipeline's parts stay what they were, with new layers in them."""
        parts = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
        if not parts:
            raise ModelError("holds no adapter of peft's", where=folder, case=2)
        for part in parts:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
                warnings.filterwarnings("error", "Found missing adapter keys")
                try:
                    PeftModel.from_pretrained(getattr(pipe, part), str(folder), subfolder=part)
                except UserWarning as error:
                    raise ModelError(f"was read by peft in part only: {str(error)[:200]}", where=folder / part, case=2) from error


def config(told: Any) -> dict[str, Any]:
    """peft's configuration, without what only newer versions know and without paths of this machine."""
    kept = {key: value for key, value in told.to_dict().items() if key in TOLD}
    targets = kept["target_modules"]
    kept["target_modules"] = sorted(targets) if isinstance(targets, set) else targets
    return {**kept, "base_model_name_or_path": None, "inference_mode": True}
