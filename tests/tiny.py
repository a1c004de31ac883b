"""Real classes at toy sizes, made here from configs, so that no test needs the network. One entry a family."""

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKL,
    AutoencoderKLFlux2,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    SanaPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from tiny_gemma import lumina2, sana
from tiny_qwen import louder, qwen3, qwen_image, qwen_tokenizer

HEIGHT, WIDTH = 16, 24
"""Oblong: a square hides every swapped height and width."""
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(length: int = 16, merge: tuple[str, str] = ("t", "h"), pad: str = END) -> CLIPTokenizer:
    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "".join(merge), START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[merge], model_max_length=length, **special)


def clip_text(tokenizer: CLIPTokenizer, kind: type[Any] = CLIPTextModel, activation: str = "quick_gelu") -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=24,
        hidden_act=activation,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def t5_tokenizer(length: int = 24) -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0), *((chr(code), -2.0) for code in range(97, 123))]
    return T5Tokenizer(vocab=[*pieces, ("\u2581the", -0.5), ("<", -2.0), (">", -2.0)], extra_ids=0, model_max_length=length)


def t5(tokenizer: T5Tokenizer, width: int = 32) -> T5EncoderModel:
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", **sizes)).eval()


def vae(scaling_factor: float = 0.18215, channels: int = 4, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        **more,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        scaling_factor=scaling_factor,
        sample_size=16,
    ).eval()


def unet(**more: Any) -> UNet2DConditionModel:
    told: dict[str, Any] = {"cross_attention_dim": 32, "attention_head_dim": 4} | more
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **told,
    ).eval()


BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def ddim(prediction: str = "epsilon") -> DDIMScheduler:
    return DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction)


def sd1() -> StableDiffusionPipeline:
    tokenizer = clip_tokenizer()
    parts = vae(), clip_text(tokenizer), tokenizer, unet(), ddim()
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def sd2() -> StableDiffusionPipeline:
    """At 768 pixels: it predicts v."""
    tokenizer = clip_tokenizer(pad="a")  # the real one pads with "!"
    denoiser = unet(use_linear_projection=True, attention_head_dim=(2, 4))
    parts = vae(), clip_text(tokenizer, activation="gelu"), tokenizer, denoiser, ddim("v_prediction")
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def sdxl() -> StableDiffusionXLPipeline:
    """The real tokenizers share their words; these do not, so that whoever asks only one of them is found out."""
    first, second = clip_tokenizer(), clip_tokenizer(merge=("d", "o"), pad="a")
    denoiser = unet(
        cross_attention_dim=64,  # both encoders' widths
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,  # six numbers of the picture, and the pooled text
    )
    return StableDiffusionXLPipeline(
        vae(0.13025),
        clip_text(first),
        clip_text(second, CLIPTextModelWithProjection, "gelu"),
        first,
        second,
        denoiser,
        EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        add_watermarker=False,
    )


def sd3() -> StableDiffusion3Pipeline:
    """Its words differ from CLIP's, so that whoever counts the wrong tokenizer is found out."""
    first, second, third = clip_tokenizer(), clip_tokenizer(merge=("d", "o"), pad="a"), t5_tokenizer()
    denoiser = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,  # T5's width, not less than both CLIPs'
        pooled_projection_dim=48,  # both CLIPs' projections
        pos_embed_max_size=16,
        qk_norm="rms_norm",  # as 3.5 has it
    ).eval()
    return StableDiffusion3Pipeline(
        denoiser,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae(1.5305, 8, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        clip_text(first, CLIPTextModelWithProjection),
        first,
        clip_text(second, CLIPTextModelWithProjection, "gelu"),
        second,
        t5(third, 64),
        third,
    )


def opened(denoiser: Any) -> None:
    """New ones keep the gates of their blocks all but shut, and whatever is trained there would be too quiet to be heard."""
    for name, layer in denoiser.named_modules():
        if isinstance(layer, torch.nn.Linear) and ("modulation" in name or "norm" in name):
            layer.weight.data.mul_(10)


def flux(guidance: bool = True) -> FluxPipeline:
    """[dev], which is told guidance and moves its times with the size; or [schnell], which does neither."""
    first, second = clip_tokenizer(), t5_tokenizer()
    denoiser = FluxTransformer2DModel(
        in_channels=32,  # eight latents' channels in patches of 2x2
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    opened(denoiser)
    return FluxPipeline(
        FlowMatchEulerDiscreteScheduler(shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance),
        vae(0.3611, 8, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        clip_text(first),
        first,
        t5(second),
        second,
        denoiser,
    )


def flux2_klein() -> Flux2KleinPipeline:
    """Not distilled; its text is read at the 9th, 18th and 27th layer."""
    tokenizer = qwen_tokenizer()
    denoiser = Flux2Transformer2DModel(
        in_channels=16,  # four latents' channels in patches of 2x2
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        guidance_embeds=False,
        axes_dims_rope=(4, 4, 4, 4),
    ).eval()
    opened(denoiser)
    encoder = AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=16,
    ).eval()
    encoder.bn.running_mean.normal_(std=0.5)
    encoder.bn.running_var.uniform_(0.3, 3.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    text = qwen3(tokenizer, Qwen3ForCausalLM, layers=28, width=8)
    return Flux2KleinPipeline(scheduler, encoder, text, tokenizer, denoiser)


def z_image() -> ZImagePipeline:
    tokenizer = qwen_tokenizer()
    denoiser = ZImageTransformer2DModel(
        in_channels=8,
        dim=24,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 4, 4],
        axes_lens=[1024, 32, 32],
    ).eval()
    for name in ("x_pad_token", "cap_pad_token"):  # zero, or whatever was in memory
        torch.nn.init.normal_(getattr(denoiser, name))
    encoder = vae(0.3611, 8, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    return ZImagePipeline(FlowMatchEulerDiscreteScheduler(shift=3.0), encoder, qwen3(tokenizer), tokenizer, denoiser)


def auraflow() -> AuraFlowPipeline:
    tokenizer = t5_tokenizer()
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    text = UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", **sizes)).eval()
    denoiser = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pos_embed_max_size=256,
    ).eval()
    louder(denoiser, 3)
    return AuraFlowPipeline(tokenizer, text, vae(0.13025), denoiser, FlowMatchEulerDiscreteScheduler(shift=1.73))


def chroma() -> ChromaPipeline:
    tokenizer = t5_tokenizer()
    denoiser = ChromaTransformer2DModel(
        in_channels=32,  # eight latents' channels in patches of 2x2
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    ).eval()
    encoder = vae(0.3611, 8, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    return ChromaPipeline(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), encoder, t5(tokenizer), tokenizer, denoiser)


TOYS: dict[str, Callable[[], Any]] = {
    "sd1": sd1,
    "sd2": sd2,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "flux-schnell": functools.partial(flux, guidance=False),
    "flux2-klein": flux2_klein,
    "z-image": z_image,
    "qwen-image": qwen_image,
    "sana": sana,
    "lumina2": lumina2,
    "auraflow": auraflow,
    "chroma": chroma,
}


@functools.cache
def _pickled(name: str) -> bytes:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = TOYS[name]()
    pipe.set_progress_bar_config(disable=True)
    buffer = io.BytesIO()
    pickle.dump(pipe, buffer)
    return buffer.getvalue()


def pipeline(name: str = "sd1") -> Any:
    """A new pipeline each time, always with the same weights."""
    return pickle.loads(_pickled(name))


def size(pipe: Any) -> tuple[int, int]:
    """Height and width of a picture that this pipeline draws: two of them insist on larger steps."""
    return (32, 64) if isinstance(pipe, SanaPipeline | Lumina2Pipeline) else (HEIGHT, WIDTH)


def sized(pipe: Any) -> dict[str, int]:
    """The same as arguments of its call."""
    return dict(zip(("height", "width"), size(pipe), strict=True))


def latents(pipe: Any, seed: int = 0) -> torch.Tensor:
    """latents_BCHW of one picture, as the denoiser of that pipeline knows them: noise."""
    config, scale, (height, width) = pipe.vae.config, pipe.vae_scale_factor, size(pipe)
    channels = config.get("latent_channels") or config.z_dim
    if isinstance(pipe, Flux2KleinPipeline):  # patches of 2x2
        channels, scale = channels * 4, scale * 2
    return torch.randn((1, channels, height // scale, width // scale), generator=torch.Generator().manual_seed(seed))


def packed(pipe: Any, latents_BCHW: torch.Tensor) -> torch.Tensor:
    """As the pipeline has them from step to step."""
    if not hasattr(pipe, "_pack_latents"):
        return latents_BCHW
    return pipe._pack_latents(latents_BCHW, *(() if isinstance(pipe, Flux2KleinPipeline) else latents_BCHW.shape))


def as_given(pipe: Any, latents_BCHW: torch.Tensor) -> torch.Tensor:
    """As the pipeline's call takes them."""
    return latents_BCHW if isinstance(pipe, Flux2KleinPipeline) else packed(pipe, latents_BCHW)
