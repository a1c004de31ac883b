"""What is measured in benchmarks/training.py: ours, and beside it the loop of diffusers' scripts, so that it runs without a checkout of them.

`baseline` does what `train_text_to_image_lora.py` and `train_text_to_image_lora_sdxl.py` (diffusers 0.42) do under accelerate, in this order:
everything is opened in the file's precision and then cast; adapters come after the cast, so under bf16 they are trained in bf16; VAE and
text encoders are asked in every step, outside of autocast; nothing is clipped in the SD1.5 script (its iterator of weights is used up by then).
At the end the SD1.5 script turns the whole U-Net into float32 to write the adapter, and the XL one opens the pipeline once more.
`--diffusers-script` runs the real one beside it.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meter import Meter


def baseline(base: Path, data: Path, told: argparse.Namespace, meter: Meter) -> list[float]:
    import numpy as np
    import torch
    from diffusers import DDPMScheduler, DiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict
    from PIL import Image

    device = torch.device(told.device)
    half = {"bf16": torch.bfloat16, "no": torch.float32}[told.precision]
    more = {"safety_checker": None} if told.model == "sd15" else {}
    pipe: Any = DiffusionPipeline.from_pretrained(base, **more)
    unet, vae, scheduler = pipe.unet, pipe.vae, DDPMScheduler.from_config(pipe.scheduler.config)
    for part in (unet, vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if part is not None:
            part.requires_grad_(False)
            part.to(device, dtype=torch.float32 if part is vae and told.model == "sdxl" else half)
    torch.manual_seed(0)
    unet.add_adapter(
        LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"])
    )
    trained = [p for p in unet.parameters() if p.requires_grad]
    if told.checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    losses = []
    meter.mark("ready")
    for step in range(told.steps):
        row, side = rows[step % len(rows)], told.resolution
        image = Image.open(data / row["file_name"]).convert("RGB")
        scale = side / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        pixels = torch.from_numpy(np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 127.5 - 1)
        with torch.no_grad():
            latents = vae.encode(pixels.permute(2, 0, 1)[None].to(device, vae.dtype)).latent_dist.sample()
            latents = (latents * vae.config.scaling_factor).to(half)
            if told.model == "sd15":
                text, added = pipe.encode_prompt([row["text"]], device, 1, False)[0], None
            else:
                text, _, pooled, _ = pipe.encode_prompt([row["text"]], device=device, do_classifier_free_guidance=False)
                times = torch.tensor([[image.height, image.width, top, left, side, side]])
                added = {"text_embeds": pooled, "time_ids": times.to(device, half)}
        noise = torch.randn_like(latents)
        at = torch.randint(0, scheduler.config.num_train_timesteps, (1,), device=device)
        noisy = scheduler.add_noise(latents, noise, at)
        with torch.autocast(device.type, torch.bfloat16, enabled=told.precision == "bf16"):
            answer = unet(noisy, at, text, added_cond_kwargs=added).sample
        loss = torch.nn.functional.mse_loss(answer.float(), noise.float())
        loss.backward()
        if told.model == "sdxl":
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    if told.model == "sd15":
        unet = unet.to(torch.float32)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    type(pipe).save_lora_weights(told.scratch / "training-out" / "baseline", unet_lora_layers=layers)
    if told.model == "sdxl":
        del unet, pipe.unet, pipe.text_encoder, pipe.text_encoder_2
        again = DiffusionPipeline.from_pretrained(base, vae=vae, torch_dtype=half)
        again.load_lora_weights(told.scratch / "training-out" / "baseline")
    return losses


def kit(base: Path, data: Path, told: argparse.Namespace, meter: Meter) -> list[float]:
    import torch

    from hf_diffusion_kit.data import load_captioned
    from hf_diffusion_kit.families import detect
    from hf_diffusion_kit.formats import FORMATS
    from hf_diffusion_kit.methods import Lora
    from hf_diffusion_kit.training.settings import TrainSettings
    from hf_diffusion_kit.training.trainer import Trainer

    settings = TrainSettings(
        steps=told.steps,
        resolution=(told.resolution,),
        mixed_precision=told.precision,
        gradient_checkpointing=told.checkpointing,
        checkpointing_steps=0,
        disk_cache=False,
    )
    dtype = {"bf16": torch.bfloat16, "no": torch.float32}[told.precision]
    meter.mark("imported")
    rows = load_captioned(data)
    meter.mark("pictures found")
    family = detect(base).open(base, dtype=dtype)
    family.to(torch.device(told.device), encoders=True)
    meter.mark("base opened")
    method = Lora(rank=16)
    trainer = Trainer(family, method, settings, rows, progress=False, say=lambda _: None)
    meter.mark("adapters made")
    trainer.fill()
    meter.mark("encoded")
    if told.compile != "no":  # reduce-overhead: as CUDA graphs
        family.model.compile(mode=None if told.compile == "default" else told.compile)
    losses = trainer.fit()
    method.settle(family)
    folder = told.scratch / "training-out" / "kit"
    folder.mkdir(parents=True, exist_ok=True)
    for name in method.formats:
        FORMATS[name].write(family, folder)
    return losses


ARMS: dict[str, Callable[[Path, Path, argparse.Namespace, Meter], list[float]]] = {"baseline": baseline, "kit": kit}
