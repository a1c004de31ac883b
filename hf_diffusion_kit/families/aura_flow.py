import math
from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import AuraFlowPipeline
from torch import Tensor

from .base import Conditioning, Family
from .targets import ADDED, ATTENTION, FROM_MODEL

LAYERS = ("linear_1", "linear_2", "out_projection")
FEED_FORWARD = (*(f"ff.{layer}" for layer in LAYERS), *(f"ff_context.{layer}" for layer in LAYERS))


class AuraFlow(Family):
    """AuraFlow (fal 2024): a T5 trained on many languages, a transformer over text and picture together, flow matching."""

    name = "auraflow"
    pipeline_class = AuraFlowPipeline
    denoiser = "transformer"
    trains_text_encoders = ()
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer": 256}
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": (*ATTENTION, *ADDED),
        "attention+ff": (*ATTENTION, *ADDED, *FEED_FORWARD),
        "all-linear": FROM_MODEL,
    }

    def usual_call(self) -> tuple[int, float]:
        return 50, 3.5

    @property
    def native_size(self) -> int:
        """Its configuration's `sample_size` is not what it was made for; its table of places is, which 0.3 has larger than it needs."""
        config: Any = self.model.config
        side = math.isqrt(config.pos_embed_max_size) * self.patch_size * self.latent_size_divisor
        return min(side, 1024)

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        """What stands after a caption's end is zero, so that no mask is needed."""
        text_BSD, *_ = self.pipe.encode_prompt(
            list(captions),
            do_classifier_free_guidance=False,
            device=self.pipe.text_encoder.device,
            max_sequence_length=self.most_tokens["tokenizer"],
        )
        return {"text": text_BSD}

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        return self.model(noisy_BCHW, timestep=time_B, encoder_hidden_states=cond["text"]).sample
