"""Toys of the families that read their captions with Gemma, each under something long that the pipeline says first."""

import inspect

from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)
from tokenizers import AddedToken
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer


def gemma_tokenizer(saying: str) -> GemmaTokenizer:
    """The saying is one token. A space belongs to the letter after it, as it mostly does in life."""
    letters = [chr(code) for code in range(97, 123)]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *letters, *(f"\u2581{letter}" for letter in letters), "th"]
    tokenizer = GemmaTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[("t", "h"), *(("\u2581", letter) for letter in letters)],
        model_max_length=8192,
        add_bos_token=True,
    )
    tokenizer.add_tokens([AddedToken(saying, normalized=False)])
    return tokenizer


def gemma2(tokenizer: GemmaTokenizer) -> Gemma2Model:
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Gemma2Model(config).eval()


def sana() -> SanaPipeline:
    """Drawn with a solver for straight lines, as the real one is; four pixels a latent."""
    instruction = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    tokenizer = gemma_tokenizer("\n".join(instruction).rstrip())
    blocks, kinds, widths = (1, 1, 1), ("ResBlock", "ResBlock", "EfficientViTBlock"), (8, 8, 16)
    encoder = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=4,
        encoder_block_types=kinds,
        decoder_block_types=kinds,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=blocks,
        decoder_layers_per_block=blocks,
        encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)),
        scaling_factor=0.41407,
    ).eval()
    denoiser = SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=8,
    ).eval()
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(tokenizer, gemma2(tokenizer), encoder, denoiser, scheduler)


def lumina2() -> Lumina2Pipeline:
    """Eight pixels a latent, since its pipeline takes that for granted."""
    tokenizer = gemma_tokenizer(f"{Lumina2Pipeline(None, None, None, None, None).system_prompt} <Prompt Start>")
    encoder = AutoencoderKL(
        block_out_channels=(4, 4, 4, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=64,
    ).eval()
    denoiser = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(300, 32, 32),
        cap_feat_dim=16,
    ).eval()
    return Lumina2Pipeline(denoiser, FlowMatchEulerDiscreteScheduler(shift=6.0), encoder, gemma2(tokenizer), tokenizer)
