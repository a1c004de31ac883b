"""The denoiser: v-prediction (Salimans & Ho 2022); one caption in ten is left out, for guidance (Ho & Salimans 2022)."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Generator, Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextModel

from ..objectives import Ddpm
from . import model, tokenizer
from .captions import CLASS_CAPTIONS, captions
from .descent import Course, Point, descend

EMA = 0.995
"""Share of the running mean that each step keeps (Polyak & Juditsky 1992)."""
NO_CAPTION, CLASS_CAPTION = 0.1, 0.1
"""Shares of pictures shown with the empty caption, and with one that says digit and not which."""


def train(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokens: Any,
    latents: tuple[Tensor, Tensor],
    labels_N: Tensor,
    course: Course,
    *,
    seed: int,
    progress: bool = False,
) -> tuple[UNet2DConditionModel, tuple[Point, ...]]:
    """Returns the averaged weights. `latents`: the posterior's mean and std in the denoiser's units, (N, C, H, W) each."""
    mean_NCHW, std_NCHW = latents
    bank = Bank(text, tokens, sorted(set(labels_N.tolist())))
    objective = Ddpm(model.scheduler().alphas_cumprod, "v_prediction")
    generator = Generator().manual_seed(seed)
    averaged = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(EMA))

    def loss() -> Tensor:
        picked_B = torch.randint(len(labels_N), (course.batch,), generator=generator)
        mean_BCHW = mean_NCHW[picked_B]
        latents_BCHW = mean_BCHW + std_NCHW[picked_B] * torch.randn(mean_BCHW.shape, generator=generator)
        time_B = torch.randint(len(objective.alphas_cumprod_T), (course.batch,), generator=generator)
        noised = objective.noise_at(latents_BCHW, time_B, [generator] * course.batch)
        text_BLD = bank.draw(labels_N[picked_B], generator)
        answer_BCHW = unet(noised.noisy_BCHW, noised.time_B, text_BLD).sample
        error_B = (answer_BCHW - noised.target_BCHW).square().flatten(1).mean(1)
        return (noised.weight_B * error_B).mean()

    curve = descend(
        [unet], loss, course, label="denoiser", progress=progress, after_step=lambda: averaged.update_parameters(unet)
    )
    return averaged.module.eval(), curve


class Bank:
    """Every caption once through the frozen text tower."""

    @torch.no_grad()
    def __init__(self, text: CLIPTextModel, tokens: Any, digits: Sequence[int]):
        sentences = ["", *CLASS_CAPTIONS]
        self.first_10 = torch.zeros(10, dtype=torch.long)
        """Where each digit's captions begin."""
        for digit in digits:
            self.first_10[digit] = len(sentences)
            sentences += captions(digit)
        self.each = len(captions(digits[0]))
        self.text_MLD = text(tokenizer.encode(tokens, sentences)).last_hidden_state

    def draw(self, labels_B: Tensor, generator: Generator) -> Tensor:
        """text_BLD: one of the digit's captions each, or the empty one, or one of the class."""
        share_B = torch.rand(len(labels_B), generator=generator)
        own_B = self.first_10[labels_B] + torch.randint(self.each, labels_B.shape, generator=generator)
        class_B = 1 + torch.randint(len(CLASS_CAPTIONS), labels_B.shape, generator=generator)
        chosen_B = torch.where(share_B < NO_CAPTION, 0, torch.where(share_B < NO_CAPTION + CLASS_CAPTION, class_B, own_B))
        return self.text_MLD[chosen_B]
