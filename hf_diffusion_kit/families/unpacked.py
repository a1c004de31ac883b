"""A checkpoint of one file, as it is downloaded from model sites, laid out as diffusers lays out a pipeline."""

from pathlib import Path

import torch
from diffusers.loaders import FromSingleFileMixin
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from safetensors import SafetensorError, safe_open

from ..errors import ModelError
from . import detect
from .opening import REFUSED, opening_failed
from .quiet import quiet_loading


def unpack(file: Path, folder: Path, *, config: str | None = None) -> None:
    """Writes the pipeline of a `.safetensors` checkpoint to `folder`, in the file's own precision.

    What the file lacks (configurations, tokenizers, the scheduler) comes from `config`, a Hub id or a folder in the diffusers layout; None
    takes the base that diffusers knows for such a file. Raises ModelError.
    """
    try:
        with safe_open(file, "pt") as told:
            names = list(told.keys())
            dtype = told.get_tensor(next(iter(names))).dtype
            # Names and shapes tell what it is; the weights are read once, by diffusers.
            shapes = {} if config else {key: torch.empty(told.get_slice(key).get_shape(), device="meta") for key in names}
        config = config or str(fetch_diffusers_config(shapes)["pretrained_model_name_or_path"])
        family = detect(config)
        if not issubclass(family.pipeline_class, FromSingleFileMixin):
            fix = "name a Hub id or a folder in the diffusers layout"
            raise ModelError(f"is one file, and diffusers opens none of a {family.name}", where=file, fix=fix, case=3)
        more = {name: value for name, value in family.left_out.items() if name not in ("image_encoder", "feature_extractor")}
        local = Path(config).is_dir()
        with quiet_loading():
            precision = dtype if dtype.is_floating_point else torch.float32
            pipe = family.pipeline_class.from_single_file(
                str(file), config=config, torch_dtype=precision, local_files_only=local, **more
            )
            pipe.save_pretrained(folder)
    except (*REFUSED, SafetensorError, StopIteration) as error:
        raise opening_failed(file, error) from error
    if not (folder / "model_index.json").is_file():
        raise ModelError("was read, and nothing came of it", where=file, case=2)
