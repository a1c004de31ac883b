"""The maths of training, against diffusers' own schedulers and by hand: the same numbers, or the adapter learns the wrong thing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

import tiny
import toyset
from hf_diffusion_kit.data import Captioned, load_captioned
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import Batch, DreamBooth, Lora, denoising_loss
from hf_diffusion_kit.objectives import Ddpm
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer

LATENTS_BCHW = torch.randn(4, 4, 6, 8, generator=torch.Generator().manual_seed(0))


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    step_B = torch.randint(1000, (4,), generator=generator)
    return step_B, torch.randn(LATENTS_BCHW.shape, generator=generator)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noising_and_target_are_the_schedulers(prediction: Any) -> None:
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=prediction)
    got = Ddpm(scheduler.alphas_cumprod, prediction).noise(LATENTS_BCHW, torch.Generator().manual_seed(1))
    step_B, eps = drawn(1)
    assert torch.equal(got.time_B, step_B)
    torch.testing.assert_close(got.noisy_BCHW, scheduler.add_noise(LATENTS_BCHW, eps, step_B))
    target = eps if prediction == "epsilon" else scheduler.get_velocity(LATENTS_BCHW, eps, step_B)
    torch.testing.assert_close(got.target_BCHW, target)
    assert torch.equal(got.weight_B, torch.ones(4))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_by_hand(prediction: Any) -> None:
    """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v (Hang et al. 2023, section 3.4)."""
    scheduler = DDPMScheduler(beta_schedule="scaled_linear")
    got = Ddpm(scheduler.alphas_cumprod, prediction, snr_gamma=5.0).noise(LATENTS_BCHW, torch.Generator().manual_seed(1))
    for step, weight in zip(got.time_B.tolist(), got.weight_B.tolist(), strict=True):
        alpha = scheduler.alphas_cumprod[step].item()
        snr = alpha / (1 - alpha)
        assert weight == pytest.approx(min(snr, 5) / (snr if prediction == "epsilon" else snr + 1), rel=1e-4)


def test_another_prediction_type_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'sample'"):
        Ddpm(DDPMScheduler().alphas_cumprod, "sample")  # type: ignore[arg-type]


def batch(family: Any, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(2, 3, tiny.HEIGHT, tiny.WIDTH, generator=generator) * 2 - 1
    with torch.no_grad():
        cond = family.encode_captions(["a b", "c"], torch.zeros(2, 6))
    return Batch(family.encode_images(pixels, generator), cond)


def test_the_loss_is_the_weighted_squared_error() -> None:
    family = FAMILIES["sd1"](tiny.pipeline())
    one, objective = batch(family, 0), family.objective(snr_gamma=2.0)
    got = denoising_loss(family, objective, one, torch.Generator().manual_seed(5))
    noised = objective.noise(one.latents_BCHW, torch.Generator().manual_seed(5))
    answer = family.model(noised.noisy_BCHW, noised.time_B, one.cond["text"]).sample
    byhand = sum(noised.weight_B[i] * ((answer[i] - noised.target_BCHW[i]) ** 2).mean() for i in range(2)) / 2
    torch.testing.assert_close(got, byhand)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_prior_is_added_with_its_weight(weight: float) -> None:
    family = FAMILIES["sd1"](tiny.pipeline())
    subject, prior, objective = batch(family, 0), batch(family, 1), family.objective()
    generator = torch.Generator().manual_seed(5)
    a, b = (denoising_loss(family, objective, part, generator) for part in (subject, prior))
    both = Batch(subject.latents_BCHW, subject.cond, prior)
    got = DreamBooth(prior_weight=weight).loss(family, objective, both, torch.Generator().manual_seed(5))
    torch.testing.assert_close(got, a + weight * b)


SETTINGS = TrainSettings(steps=1, learning_rate=1e-2, resolution=(tiny.HEIGHT, tiny.WIDTH), checkpointing_steps=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    return load_captioned(toyset.folder(tmp_path_factory.mktemp("data") / "five"))


def trainer(data: Captioned, settings: TrainSettings) -> Trainer:
    return Trainer(FAMILIES["sd1"](tiny.pipeline()), Lora(rank=2), settings, data, say=lambda _: None, progress=False)


def test_accumulated_gradients_are_the_mean_of_their_batches(data: Captioned) -> None:
    run = trainer(data, replace(SETTINGS, gradient_accumulation_steps=3, max_grad_norm=1e9))
    means: dict[str, torch.Tensor] = {}
    for micro in range(3):
        run._loss(micro).backward()
    for name, parameter in run.weights.items():
        if parameter.grad is not None:
            means[name] = parameter.grad / 3
            parameter.grad = None
    heard: dict[str, torch.Tensor] = {}
    step = run.optimizer.step
    run.optimizer.step = lambda: (  # type: ignore[method-assign,assignment]
        heard.update({n: p.grad.clone() for n, p in run.weights.items() if p.grad is not None}),
        step(),
    )
    run.step()
    assert heard.keys() == means.keys()
    for name, mean in means.items():
        torch.testing.assert_close(heard[name], mean, msg=name)


def test_dropped_captions_are_a_share_of_all_and_in_the_ledger(data: Captioned) -> None:
    run = trainer(data, replace(SETTINGS, steps=300, caption_dropout=0.25))
    shown = [sample.caption for step in range(300) for sample in run.loader.samples(step, 0)]
    assert sum(not caption for caption in shown) / 300 == pytest.approx(0.25, abs=0.08)
    run.step()
    assert sum(use.times for use in run.ledger()) == 1


def test_an_epoch_shows_each_picture_once_and_every_caption_has_its_turn(data: Captioned) -> None:
    run = trainer(data, replace(SETTINGS, batch_size=5))
    first, second = (run.loader.samples(step, 0) for step in (0, 1))
    assert sorted(sample.index for sample in first) == sorted(sample.index for sample in second) == [0, 1, 2, 3, 4]
    assert [sample.index for sample in first] != [sample.index for sample in second]
    both = {(sample.image_id, sample.caption) for sample in (*first, *second)}
    assert len(both) == 10, "two epochs use both captions of each picture"


def test_lora_learns_one_batch(data: Captioned) -> None:
    run = trainer(data, replace(SETTINGS, steps=40, batch_size=5))
    probe = run.loader.batch(0, 0)

    def loss() -> float:
        with torch.no_grad():
            draws = [denoising_loss(run.family, run.objective, probe, torch.Generator().manual_seed(s)).item() for s in range(20)]
        return sum(draws) / len(draws)

    before = loss()
    for _ in range(40):
        run.step()
    assert loss() < before - 0.005


def test_a_safety_checker_paints_nothing_black(tmp_path: Path) -> None:
    """The base has a checker that flags everything; what is drawn must be what the denoiser drew."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    from hf_diffusion_kit.evaluation import Shot, draw

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": 10}, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-10)
    pipe = tiny.pipeline()
    extractor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    parts = {**pipe.components, "safety_checker": checker, "feature_extractor": extractor}
    StableDiffusionPipeline(**parts).save_pretrained(tmp_path)
    shot = Shot("a b", 0, 2, 1.0, (tiny.HEIGHT, tiny.WIDTH))
    opened = FAMILIES["sd1"].open(tmp_path)
    assert opened.pipe.safety_checker is None
    assert draw(opened.pipe, [shot])[0].getextrema() != ((0, 0), (0, 0), (0, 0))
