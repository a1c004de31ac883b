"""Settings that belong together and have a name; whatever else is set wins over them."""

from typing import Any

FAST = {
    "method": {"name": "dreambooth-full", "text_encoder": True, "prior_weight": 0.0},
    "training": {
        "steps": 1850,
        "learning_rate": 2e-6,
        "text_encoder_learning_rate": 1e-6,
        "text_encoder_steps": 350,
        "first_stage": "joint",
        "lr_scheduler": "linear",
        "batch_size": 1,
    },
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "fast-dreambooth": FAST,
    "fast-dreambooth-text-first": {**FAST, "training": {**FAST["training"], "first_stage": "text"}},
    "fast-dreambooth-lora": {
        "method": {"name": "dreambooth", "text_encoder": True, "prior_weight": 0.0, "rank": 16},
        "training": {**FAST["training"], "learning_rate": 1e-4, "text_encoder_learning_rate": 5e-5, "first_stage": "text"},
    },
}
"""Name -> sections.

fast-dreambooth: as TheLastBen's notebook trains: 350 steps at 1e-6, of which the text encoder is kept, then 1500 steps at 2e-6 for the
U-Net from the base on, both falling linearly to 0. fast-dreambooth-text-first: its first stage trains the text encoder alone, which is what
the notebook says of itself. fast-dreambooth-lora: the same two stages with adapters, which learn at higher rates and fit a small GPU.
"""
WHAT = {
    "fast-dreambooth": "350 steps for the text encoder (the U-Net learns along and is set back), 1500 for the U-Net; all weights",
    "fast-dreambooth-text-first": "the same, but the first stage trains the text encoder alone",
    "fast-dreambooth-lora": "the same two stages with adapters",
}
