from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ChromaPipeline
from torch import Tensor

from .base import Conditioning, Family
from .targets import JOINT

SINGLE = ("proj_mlp", "single_transformer_blocks.*.proj_out")
"""Feed-forward layers of blocks that read text and picture as one sequence; the model's own last layer is called proj_out too."""

UNMASKED = 3
"""Arguments of such a block when its mask is forgotten: states, modulation, places."""


class Chroma(Family):
    """Chroma (Lodestone Rock 2025), of FLUX.1 [schnell]: a T5 alone, guided by an unconditional half, and padding that is masked but for one."""

    name = "chroma"
    pipeline_class = ChromaPipeline
    denoiser = "transformer"
    trains_text_encoders = ()
    most_tokens: ClassVar[dict[str, int]] = {"tokenizer": 512}
    target_presets: ClassVar[dict[str, tuple[str, ...]]] = JOINT | {"attention+ff": (*JOINT["attention+ff"], *SINGLE)}
    left_out: ClassVar[dict[str, Any]] = {"image_encoder": None, "feature_extractor": None}
    patch = 2

    def usual_call(self) -> tuple[int, float]:
        return 35, 5.0

    @property
    def native_size(self) -> int:
        return int(self.pipe.default_sample_size) * self.latent_size_divisor

    def encode_captions(self, captions: Sequence[str], geometry_B6: Tensor) -> Conditioning:
        text_BSD, _, mask_BS, *_ = self.pipe.encode_prompt(
            list(captions),
            device=self.pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.most_tokens["tokenizer"],
        )
        return {"text": text_BSD, "mask": mask_BS}

    def compute_twice(self, way: Callable[..., Any]) -> None:
        """diffusers 0.42 forgets the mask of its last blocks, which then have three arguments instead of four: it is put back."""
        super().compute_twice(lambda block, *told: way(block, *told, *([self._mask_BN] if len(told) == UNMASKED else [])))

    def predict(self, noisy_BCHW: Tensor, time_B: Tensor, cond: Conditioning) -> Tensor:
        batch, channels, height, width = noisy_BCHW.shape
        text_BSD, device, dtype = cond["text"], cond["text"].device, cond["text"].dtype
        patches_BND = ChromaPipeline._pack_latents(noisy_BCHW, batch, channels, height, width)
        self._mask_BN = torch.cat([cond["mask"], cond["mask"].new_ones(patches_BND.shape[:2])], dim=1)
        answer_BND = self.model(
            hidden_states=patches_BND,
            timestep=time_B,
            encoder_hidden_states=text_BSD,
            txt_ids=torch.zeros(text_BSD.shape[1], 3, device=device, dtype=dtype),
            img_ids=ChromaPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, device, dtype),
            attention_mask=self._mask_BN,
        ).sample
        return ChromaPipeline._unpack_latents(answer_BND, height, width, 1)
