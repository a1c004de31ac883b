"""The text tower: first a small CLIP (Radford et al. 2021) against the pictures, then frozen.

Trained together with the denoiser from nothing, captions are ignored: the loss falls, and what is drawn has nothing to do with them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from . import model, tokenizer
from .captions import captions, prompt
from .descent import Course, Point, descend
from .variations import swayed


class Clip(nn.Module):
    """Two towers whose vectors of one digit's picture and caption come to point the same way."""

    def __init__(self, text: CLIPTextModel, seed: int):
        super().__init__()
        config = CLIPVisionConfig(
            hidden_size=model.TEXT_WIDTH,
            intermediate_size=2 * model.TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=model.SIZE,
            patch_size=8,
        )
        self.text = text
        with model.seeded(seed):
            self.vision = CLIPVisionModel(config)
            self.text_projection = nn.Linear(model.TEXT_WIDTH, model.TEXT_WIDTH, bias=False)
            self.vision_projection = nn.Linear(model.TEXT_WIDTH, model.TEXT_WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def pictures(self, pixels_B3HW: Tensor) -> Tensor:
        """vectors_BD of length 1."""
        return normalize(self.vision_projection(self.vision(pixels_B3HW).pooler_output), dim=-1)

    def captions(self, tokens_BL: Tensor) -> Tensor:
        """vectors_BD of length 1."""
        return normalize(self.text_projection(self.text(tokens_BL).pooler_output), dim=-1)


def train(
    text: CLIPTextModel,
    tokens: Any,
    pixels_N3HW: Tensor,
    labels_N: Tensor,
    course: Course,
    *,
    seed: int,
    progress: bool = False,
) -> tuple[Clip, tuple[Point, ...]]:
    """Teaches `text` in place and freezes it; returns both towers and the loss curve.

    Each group of a batch holds one picture of every digit, so that no wrong pair is right by chance.
    """
    digits = sorted(set(labels_N.tolist()))
    members = [torch.nonzero(labels_N == digit).flatten() for digit in digits]
    tokens_KML = torch.stack([tokenizer.encode(tokens, captions(digit)) for digit in digits])
    groups, classes = max(1, course.batch // len(digits)), len(digits)
    clip = Clip(text, seed + 1)
    generator = Generator().manual_seed(seed)
    right_BK = torch.arange(classes).repeat(groups)

    def loss() -> Tensor:
        picked_KG = torch.stack([m[torch.randint(len(m), (groups,), generator=generator)] for m in members])
        said_KG = torch.randint(tokens_KML.shape[1], (classes, groups), generator=generator)
        pictures_GKD = clip.pictures(swayed(pixels_N3HW[picked_KG.T.flatten()], generator)).view(groups, classes, -1)
        spoken_KGL = torch.stack([tokens_KML[k][said_KG[k]] for k in range(classes)])
        captions_GKD = clip.captions(spoken_KGL.transpose(0, 1).flatten(0, 1)).view(groups, classes, -1)
        match_GKK = clip.log_scale.exp().clamp(max=100) * pictures_GKD @ captions_GKD.transpose(1, 2)
        by_picture = cross_entropy(match_GKK.flatten(0, 1), right_BK)
        by_caption = cross_entropy(match_GKK.transpose(1, 2).flatten(0, 1), right_BK)
        return (by_picture + by_caption) / 2

    curve = descend([clip], loss, course, label="text tower", progress=progress)
    return clip.requires_grad_(False), curve


@torch.no_grad()
def zero_shot(clip: Clip, tokens: Any, pixels_N3HW: Tensor, labels_N: Tensor, digits: Sequence[int]) -> float:
    """Share of pictures whose nearest caption, of those of `digits`, is the right one."""
    captions_KD = clip.captions(tokenizer.encode(tokens, [prompt(digit) for digit in digits]))
    guess_N = (clip.pictures(pixels_N3HW) @ captions_KD.T).argmax(1)
    return (torch.tensor(list(digits))[guess_N] == labels_N).float().mean().item()
