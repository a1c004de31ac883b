"""Toys of what reads captions with a Qwen: Qwen3 for FLUX.2 and Z-Image, Qwen2.5-VL and all the rest of Qwen-Image."""

import re
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
)

CHAT = """{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
"""Qwen3's template, in short."""


def qwen_tokenizer(length: int = 1024) -> Qwen2Tokenizer:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), "th", *special, "<think>", "</think>"])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[("t", "h")], model_max_length=length, additional_special_tokens=special[1:])
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(tokenizer: Qwen2Tokenizer, kind: type[Any] = Qwen3Model, layers: int = 2, width: int = 16) -> Any:
    sizes = {"hidden_size": width, "intermediate_size": 24, "head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    return kind(Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=layers, tie_word_embeddings=True, **sizes)).eval()


PROMPT = "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background:"


def louder(denoiser: nn.Module, factor: float) -> None:
    """Fresh weights are so small that an adapter on them would hardly be heard."""
    with torch.no_grad():
        for name, module in denoiser.named_modules():
            if "blocks" in name and isinstance(module, nn.Linear):
                module.weight.mul_(factor)


def qwen_image() -> QwenImagePipeline:
    """The words of its template are a token each, so that 34 tokens stand before the caption, as in life."""
    tokenizer = qwen_tokenizer()
    words = ["system", "user", "assistant", *re.findall(r" ?\w+", PROMPT)]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    turns = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    config = Qwen2_5_VLConfig(
        text_config=text | {"vocab_size": len(tokenizer), "rope_parameters": turns, "bos_token_id": None, "eos_token_id": 0},
        vision_config=eyes | {"fullatt_block_indexes": [0]},
        image_token_id=0,
        video_token_id=1,
        vision_start_token_id=2,
        vision_end_token_id=3,
    )
    encoder = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.3, 0.2, 0.0],
        latents_std=[1.5, 0.7, 2.0, 1.1],
    ).eval()
    denoiser = QwenImageTransformer2DModel(
        in_channels=16,  # four latents' channels in patches of 2x2
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    louder(denoiser, 4)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=96, max_shift=0.9
    )
    return QwenImagePipeline(scheduler, encoder, Qwen2_5_VLForConditionalGeneration(config).eval(), tokenizer, denoiser)
