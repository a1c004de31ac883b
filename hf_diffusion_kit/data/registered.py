"""`register()`: stock `datasets.load_dataset("coco_captions_subset", data_files=..., ...)` finds the builder of COCO's captions."""

import datasets.packaged_modules

from ..errors import ConfigError
from . import builder

NAME = "coco_captions_subset"


def register() -> str:
    """Makes the name known to `datasets` in this process, and returns it. Opt-in; a second call changes nothing.

    `datasets` has no public place for that. Raises ConfigError where its private one is gone; `load_dataset` of this package,
    which needs none, gives the same rows.
    """
    known = getattr(datasets.packaged_modules, "_PACKAGED_DATASETS_MODULES", None)
    if not isinstance(known, dict) or "parquet" not in known or len(known["parquet"]) != 2:
        what = f"datasets {datasets.__version__} keeps its builders in another place"
        fix = 'use hf_diffusion_kit.load_dataset("coco-captions", ...), which gives the same rows'
        raise ConfigError(what, where=f"register: {NAME}", fix=fix, case=2)
    known[NAME] = (builder.__name__, builder.code_hash())
    return NAME
