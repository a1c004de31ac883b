import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars for a second's work, no word on torchvision, which is not needed here, nor on parts that a LoRA does not touch."""
    levels = transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled(), diffusers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # diffusers 0.42 still says to huggingface_hub 2 that it wants no links.
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument", UserWarning)
            warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)  # its Chroma, to itself
            yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        diffusers_logging.set_verbosity(levels[1])
        if bars[0]:
            transformers_logging.enable_progress_bar()
        if bars[1]:
            diffusers_logging.enable_progress_bar()
