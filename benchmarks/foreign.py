"""Other people's training scripts, run as they are: in a process of ours, by their own command line, from a checkout that you name.

    python benchmarks/training.py --diffusers-script ~/diffusers/examples/text_to_image/train_text_to_image_lora.py
    python benchmarks/training.py --sd-scripts ~/sd-scripts

diffusers' scripts use torchvision for five transforms of pictures. Where it is not installed, a stand-in made of PIL and torch is written
into the scratch folder; it does what torchvision does to a PIL image.
"""

import argparse
import json
import runpy
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from meter import Meter

STAND_IN = {
    "__init__.py": "from . import transforms\n",
    "transforms/__init__.py": """
import enum
import random

import numpy as np
import torch
from PIL import Image

from . import functional


class InterpolationMode(enum.Enum):
    NEAREST, BILINEAR, BICUBIC, LANCZOS = "nearest", "bilinear", "bicubic", "lanczos"


class Compose:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, x):
        for step in self.steps:
            x = step(x)
        return x


class Lambda:
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


class Resize:
    def __init__(self, size, interpolation=InterpolationMode.BILINEAR):
        self.size, self.how = size, Image.Resampling[interpolation.name]

    def __call__(self, image):
        short = min(image.size)
        return image.resize(tuple(int(self.size * side / short) for side in image.size), self.how)


class CenterCrop:
    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        top, left = round((image.height - self.size) / 2), round((image.width - self.size) / 2)
        return functional.crop(image, top, left, self.size, self.size)


class RandomCrop(CenterCrop):
    def __call__(self, image):
        top, left = random.randint(0, image.height - self.size), random.randint(0, image.width - self.size)
        return functional.crop(image, top, left, self.size, self.size)


class RandomHorizontalFlip:
    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, image):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.p else image


class ToTensor:
    def __call__(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


class Normalize:
    def __init__(self, mean, std):
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __call__(self, x):
        return (x - self.mean) / self.std
""",
    "transforms/functional.py": """
def crop(image, top, left, height, width):
    return image.crop((left, top, left + width, top + height))
""",
}


def diffusers_script(base: Path, data: Path, told: argparse.Namespace, meter: Meter) -> list[float]:
    """At the defaults of its own command line, but for what is told alike to all: pictures, size, rank, batch, precision."""
    del meter
    words = {
        "pretrained_model_name_or_path": base,
        "train_data_dir": data,
        "cache_dir": told.scratch / "training-cache" / "datasets",
        "output_dir": told.scratch / "training-out" / "diffusers-script",
        "resolution": told.resolution,
        "train_batch_size": 1,
        "max_train_steps": told.steps,
        "rank": 16,
        "mixed_precision": told.precision,
        "seed": 0,
    }
    alone = ["--center_crop", *(["--gradient_checkpointing"] if told.checkpointing else [])]
    import datasets  # it looks for torchvision too, before there seems to be one

    del datasets
    transforms(told.scratch)
    sys.argv = [str(told.diffusers_script), *alone, *(word for pair in words.items() for word in (f"--{pair[0]}", str(pair[1])))]
    runpy.run_path(str(told.diffusers_script), run_name="__main__")
    return logged(told.scratch / "training-out" / "diffusers-script" / "logs", "train_loss", told.steps)


def sd_scripts(base: Path, data: Path, told: argparse.Namespace, meter: Meter) -> list[float]:
    """`train_network.py` with latents and text conditioning cached, its adapters on the same layers as ours."""
    del meter
    transforms(told.scratch)
    words_of = told.scratch / "sd-scripts-tokenizer"  # it asks the Hub for OpenAI's, or this folder
    tokenizer(words_of / "openai_clip-vit-large-patch14")
    pictures = captioned_beside(data, told.scratch / f"{data.name}-sd-scripts")
    words = {
        "pretrained_model_name_or_path": base,
        "train_data_dir": pictures,
        "tokenizer_cache_dir": words_of,
        "output_dir": told.scratch / "training-out" / "sd-scripts",
        "output_name": "lora",
        "resolution": told.resolution,
        "train_batch_size": 1,
        "max_train_steps": told.steps,
        "network_module": "networks.lora",
        "network_dim": 16,
        "network_alpha": 16,
        "mixed_precision": told.precision,
        "learning_rate": 1e-4,
        "optimizer_type": "AdamW",
        "caption_extension": ".txt",
        "max_data_loader_n_workers": 0,
        "seed": 0,
        "save_model_as": "safetensors",
    }
    alone = ["--cache_latents", "--network_train_unet_only", "--sdpa", *(["--full_bf16"] if told.precision == "bf16" else [])]
    alone += ["--gradient_checkpointing"] if told.checkpointing else []
    script = told.sd_scripts / ("sdxl_train_network.py" if told.model == "sdxl" else "train_network.py")
    sys.path.insert(0, str(told.sd_scripts))
    sys.argv = [str(script), *alone, *(word for pair in words.items() for word in (f"--{pair[0]}", str(pair[1])))]
    runpy.run_path(str(script), run_name="__main__")
    return []


def transforms(scratch: Path) -> None:
    """torchvision's, or the stand-in where it is not installed."""
    if find_spec("torchvision") is not None:
        return
    from diffusers.utils import import_utils  # these look for torchvision once, and find none
    from transformers.utils import is_torchvision_available

    del import_utils
    is_torchvision_available()
    folder = scratch / "torchvision-stand-in"
    sys.path.insert(0, str(folder))
    for name, text in STAND_IN.items():
        path = folder / "torchvision" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"), encoding="utf-8")


def logged(folder: Path, name: str, count: int) -> list[float]:
    """The last losses that a script told TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    newest = max((path for path in folder.rglob("events.*")), key=lambda path: path.stat().st_mtime_ns, default=None)
    if newest is None:
        return []
    events = EventAccumulator(str(newest))
    events.Reload()
    return [scalar.value for scalar in events.Scalars(name)][-count:] if name in events.Tags()["scalars"] else []


def tokenizer(folder: Path) -> None:
    """The benchmark's own, in files that older transformers read."""
    from hf_diffusion_kit import digits

    shutil.copytree(digits.path("digits") / "tokenizer", folder, dirs_exist_ok=True)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_max_length": 77}))


def captioned_beside(data: Path, folder: Path) -> Path:
    """The pictures as sd-scripts wants them: `<repeats>_<class>/`, a text file beside each."""
    inner = folder / "1_pictures"
    inner.mkdir(parents=True, exist_ok=True)
    for line in (data / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        shutil.copy(data / row["file_name"], inner / row["file_name"])
        (inner / row["file_name"]).with_suffix(".txt").write_text(row["text"], encoding="utf-8")
    return folder


FOREIGN = {"diffusers-script": diffusers_script, "sd-scripts": sd_scripts}
