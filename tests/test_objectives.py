"""The maths of training, against diffusers' own schedulers and by hand: the same numbers, or the adapter learns the wrong thing."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr
from torch import Generator, Tensor

import tiny
import toyset
from hf_diffusion_kit.data import Captioned, load_captioned
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.families import FAMILIES
from hf_diffusion_kit.methods import Batch, DreamBooth, Lora, denoising_loss
from hf_diffusion_kit.objectives import Ddpm, Flow, Noised, options_for
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.settings_noise import NoiseSettings
from hf_diffusion_kit.training.trainer import Trainer

LATENTS_BCHW = torch.randn(4, 4, 6, 8, generator=Generator().manual_seed(0))
SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
ALPHAS_T = SCHEDULER.alphas_cumprod
ALL_STEPS = torch.arange(1000)
EVERYTHING: list[dict[str, Any]] = [
    {"snr_gamma": 5.0, "noise_offset": 0.1, "input_perturbation": 0.1, "loss_type": "huber"},
    {"debiased": True, "zero_terminal_snr": True, "noise_offset": 0.1, "input_perturbation": 0.1, "loss_type": "smooth_l1"},
]


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def drawn(*seeds: int) -> tuple[Tensor, Tensor]:
    """(time_B, noise_BCHW) as an objective draws them, each sample's from its own generator: first the time."""
    own = generators(*seeds)
    return (
        torch.stack([torch.randint(1000, (), generator=one) for one in own]),
        torch.stack([torch.randn(LATENTS_BCHW.shape[1:], generator=one) for one in own]),
    )


def weights_of(objective: Ddpm) -> Tensor:
    """Weight of each training step."""
    return objective.noise_at(torch.zeros(1000, 1, 1, 1), ALL_STEPS, generators(*range(1000))).weight_B


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noising_and_target_are_the_schedulers(prediction: Any) -> None:
    got = Ddpm(ALPHAS_T, prediction).noise(LATENTS_BCHW, generators(1, 2, 3, 4))
    step_B, eps = drawn(1, 2, 3, 4)
    assert torch.equal(got.time_B, step_B)
    torch.testing.assert_close(got.noisy_BCHW, SCHEDULER.add_noise(LATENTS_BCHW, eps, step_B))
    target = eps if prediction == "epsilon" else SCHEDULER.get_velocity(LATENTS_BCHW, eps, step_B)
    torch.testing.assert_close(got.target_BCHW, target)
    assert torch.equal(got.weight_B, torch.ones(4))


@pytest.mark.parametrize("options", [{}, *EVERYTHING])
def test_a_batch_is_its_samples_each_alone(options: dict[str, Any]) -> None:
    objective = Ddpm(ALPHAS_T, "v_prediction", **options)
    together = objective.noise(LATENTS_BCHW, generators(5, 6, 7, 8))
    for i, seed in enumerate((5, 6, 7, 8)):
        alone = objective.noise(LATENTS_BCHW[i : i + 1], generators(seed))
        for name in ("noisy_BCHW", "time_B", "target_BCHW", "weight_B"):
            assert torch.equal(getattr(together, name)[i : i + 1], getattr(alone, name)), name


@pytest.mark.parametrize("options", [{}, *EVERYTHING])
def test_noise_at_a_time_is_the_noise_that_had_been_drawn_with_it(options: dict[str, Any]) -> None:
    objective = Ddpm(ALPHAS_T, "v_prediction", **options)
    whole, own = objective.noise(LATENTS_BCHW, generators(1, 2, 3, 4)), generators(1, 2, 3, 4)
    for one in own:
        torch.randint(1000, (), generator=one)
    again = objective.noise_at(LATENTS_BCHW, whole.time_B, own)
    assert torch.equal(again.noisy_BCHW, whole.noisy_BCHW) and torch.equal(again.target_BCHW, whole.target_BCHW)


def test_an_option_leaves_times_and_noise_of_all_others_as_they_were() -> None:
    plain = Ddpm(ALPHAS_T).noise(LATENTS_BCHW, generators(1, 2, 3, 4))
    for options in ({"input_perturbation": 0.1}, {"snr_gamma": 5.0}, {"loss_type": "huber"}):
        got = Ddpm(ALPHAS_T, **options).noise(LATENTS_BCHW, generators(1, 2, 3, 4))
        assert torch.equal(got.time_B, plain.time_B) and torch.equal(got.target_BCHW, plain.target_BCHW)


def test_times_to_measure_at_are_spread_over_all() -> None:
    objective = Ddpm(ALPHAS_T)
    assert objective.times(4).tolist() == [125, 375, 625, 875]
    assert objective.times(1).tolist() == [500]
    assert torch.equal(objective.times(1000), ALL_STEPS)
    assert Ddpm(ALPHAS_T[:3]).times(8).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


# Weights of noise levels


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_of_every_step_are_the_papers(gamma: float) -> None:
    """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v (Hang et al. 2023, section 3.4); SNR as diffusers computes it."""
    snr_T = compute_snr(SCHEDULER, ALL_STEPS)
    capped_T = snr_T.clamp(max=gamma)
    torch.testing.assert_close(weights_of(Ddpm(ALPHAS_T, snr_gamma=gamma)), capped_T / snr_T)
    torch.testing.assert_close(weights_of(Ddpm(ALPHAS_T, "v_prediction", snr_gamma=gamma)), capped_T / (snr_T + 1))


def test_debiased_weights_are_one_over_the_root_of_snr_up_to_a_thousand() -> None:
    """sd-scripts' `apply_debiased_estimation` for epsilon; for v the same model's loss (sd-scripts' 1 / (SNR + 1) is another)."""
    snr_T = compute_snr(SCHEDULER, ALL_STEPS)
    assert snr_T[0] > 1000 > snr_T[2]
    torch.testing.assert_close(weights_of(Ddpm(ALPHAS_T, debiased=True)), 1 / snr_T.clamp(max=1000).sqrt())
    want = snr_T / (snr_T + 1) / snr_T.clamp(max=1000).sqrt()
    torch.testing.assert_close(weights_of(Ddpm(ALPHAS_T, "v_prediction", debiased=True)), want)


@pytest.mark.parametrize("options", [{"snr_gamma": 5.0}, {"debiased": True}])
def test_a_model_has_one_loss_whether_it_says_epsilon_or_v(options: dict[str, Any]) -> None:
    alphas_T, latents = ALPHAS_T.double(), torch.randn(1000, 2, 2, 2, generator=Generator().manual_seed(1), dtype=torch.float64)
    one, other = (Ddpm(alphas_T, kind, **options) for kind in ("epsilon", "v_prediction"))  # type: ignore[arg-type]
    eps, v = (each.noise_at(latents, ALL_STEPS, generators(*range(1000))) for each in (one, other))
    said = eps.target_BCHW + torch.randn(latents.shape, generator=Generator().manual_seed(2), dtype=torch.float64)
    signal, sigma = (root.sqrt().view(-1, 1, 1, 1) for root in (alphas_T, 1 - alphas_T))
    clean = (eps.noisy_BCHW - sigma * said) / signal  # what a model that says this epsilon believes the picture to be
    as_v = signal * said - sigma * clean

    def loss(answer: Tensor, noised: Noised) -> Tensor:
        return (answer - noised.target_BCHW).square().mean((1, 2, 3)) * noised.weight_B

    torch.testing.assert_close(loss(said, eps), loss(as_v, v), rtol=1e-6, atol=0)


# A schedule that ends in pure noise


def test_the_zero_terminal_schedule_is_diffusers_and_twice_changes_nothing() -> None:
    objective = Ddpm(ALPHAS_T, "v_prediction", zero_terminal_snr=True)
    want = torch.cumprod(1 - rescale_zero_terminal_snr(SCHEDULER.betas), dim=0)
    torch.testing.assert_close(objective.power_T, want, rtol=1e-3, atol=1e-6)
    assert objective.power_T[-1] == 0 and objective.power_T[0] == pytest.approx(ALPHAS_T[0].item())
    again = Ddpm(objective.power_T, "v_prediction", zero_terminal_snr=True)
    torch.testing.assert_close(again.power_T, objective.power_T)


def test_a_scheduler_made_with_the_hints_has_the_schedule_that_was_trained() -> None:
    base = DDIMScheduler.from_config(SCHEDULER.config, prediction_type="v_prediction")
    objective = Ddpm(base.alphas_cumprod, "v_prediction", zero_terminal_snr=True)
    reader = DDIMScheduler.from_config(base.config, **objective.hints())
    torch.testing.assert_close(reader.alphas_cumprod, objective.power_T, rtol=1e-3, atol=1e-6)
    reader.set_timesteps(4)
    assert reader.timesteps[0] == 999, "it starts where there is nothing but noise"
    assert Ddpm(base.alphas_cumprod, "v_prediction", snr_gamma=5.0).hints() == {}


@pytest.mark.parametrize("options", [{}, {"snr_gamma": 5.0}, {"debiased": True}])
def test_pure_noise_is_trained_with_a_weight_of_one(options: dict[str, Any]) -> None:
    objective = Ddpm(ALPHAS_T, "v_prediction", zero_terminal_snr=True, **options)
    got = objective.noise_at(LATENTS_BCHW, torch.full((4,), 999), generators(1, 2, 3, 4))
    eps = torch.stack([torch.randn(LATENTS_BCHW.shape[1:], generator=one) for one in generators(1, 2, 3, 4)])
    assert torch.equal(got.noisy_BCHW, eps) and torch.equal(got.target_BCHW, -LATENTS_BCHW)
    assert torch.equal(got.weight_B, torch.ones(4))
    every = weights_of(objective)
    assert torch.isfinite(every).all() and (every > 0).all()
    # Schedulers that must divide by it write 2**-24 for 0.
    written = torch.tensor([0.9, 0.5, 2.0**-24])
    assert Ddpm(written, "v_prediction", **options).noise_at(LATENTS_BCHW[:1], torch.tensor([2]), generators(1)).weight_B == 1


# Noise


def test_offset_noise_moves_whole_channels_and_is_to_be_told_with_the_rest() -> None:
    latents = torch.zeros(400, 4, 16, 16)
    got = Ddpm(ALPHAS_T, noise_offset=0.5).noise_at(latents, torch.full((400,), 999), generators(*range(400)))
    means = got.target_BCHW.mean((2, 3))
    assert means.var().item() == pytest.approx(0.5**2 + 1 / 256, rel=0.1)
    assert (got.target_BCHW - means[..., None, None]).var().item() == pytest.approx(1, rel=0.01)
    torch.testing.assert_close(got.noisy_BCHW, (1 - ALPHAS_T[999]).sqrt() * got.target_BCHW)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_perturbed_input_has_more_noise_than_its_target(prediction: Any) -> None:
    latents = torch.randn(50, 4, 16, 16, generator=Generator().manual_seed(0))
    step_B, own = torch.full((50,), 400), range(50)
    plain = Ddpm(ALPHAS_T, prediction).noise_at(latents, step_B, generators(*own))
    got = Ddpm(ALPHAS_T, prediction, input_perturbation=0.5).noise_at(latents, step_B, generators(*own))
    assert torch.equal(got.target_BCHW, plain.target_BCHW)
    more = (got.noisy_BCHW - plain.noisy_BCHW) / (1 - ALPHAS_T[400]).sqrt()
    assert more.std().item() == pytest.approx(0.5, rel=0.02) and abs(more.mean().item()) < 0.01
    given = (got.noisy_BCHW - ALPHAS_T[400].sqrt() * latents) / (1 - ALPHAS_T[400]).sqrt()
    assert given.var().item() == pytest.approx(1 + 0.5**2, rel=0.02)


def test_times_are_drawn_evenly() -> None:
    time_B = Ddpm(ALPHAS_T).noise(torch.zeros(4000, 1, 1, 1), generators(*range(4000))).time_B
    counts = torch.histc(time_B.float(), bins=4, min=0, max=1000)
    assert time_B.min() >= 0 and time_B.max() <= 999 and counts.min() > 850 and counts.max() < 1150


# Measures of error


@pytest.mark.parametrize("c", [0.05, 0.1, 1.0])
def test_measures_are_sd_scripts_formulas(c: float) -> None:
    answer, noised = torch.linspace(-3, 3, 61).view(1, 1, 1, -1), Noised(*[torch.zeros(1, 1, 1, 61)] * 4)
    d = answer.double()
    want = {"l2": d**2, "huber": 2 * c * ((d**2 + c**2).sqrt() - c), "smooth_l1": 2 * ((d**2 + c**2).sqrt() - c)}
    for name, error in want.items():
        got = Ddpm(ALPHAS_T, loss_type=name, huber_c=c).error(answer.half(), noised)  # type: ignore[arg-type]
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), error, rtol=2e-3, atol=1e-6)


def test_small_errors_keep_their_digits_and_their_slope() -> None:
    answer = torch.tensor([0.0, 1e-6, 1e-4]).view(1, 1, 1, 3).requires_grad_()
    got = Ddpm(ALPHAS_T, loss_type="huber", huber_c=1.0).error(answer, Noised(*[torch.zeros(1, 1, 1, 3)] * 4))
    torch.testing.assert_close(got.flatten(), torch.tensor([0.0, 1e-12, 1e-8]), rtol=1e-5, atol=0)
    got.sum().backward()
    assert answer.grad is not None
    torch.testing.assert_close(answer.grad.flatten(), torch.tensor([0.0, 2e-6, 2e-4]), rtol=1e-5, atol=0)


# What is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prediction": "sample"}, "'sample'"),
        ({"snr_gamma": 0.0}, "snr_gamma: must be above 0"),
        ({"huber_c": -1.0}, "huber_c: must be above 0"),
        ({"noise_offset": -0.1}, "noise_offset: must be 0 or more"),
        ({"input_perturbation": float("nan")}, "input_perturbation: must be 0 or more"),
        ({"loss_type": "huberr"}, "did you mean 'huber'"),
        ({"snr_gamma": 5.0, "debiased": True}, "debiased: does not go with snr_gamma"),
        ({"zero_terminal_snr": True}, "zero_terminal_snr: this base predicts epsilon"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Ddpm(ALPHAS_T, **wrong)


def test_settings_and_objective_have_the_same_options_and_defaults() -> None:
    told = NoiseSettings().objective_options()
    defaults = asdict(Ddpm(ALPHAS_T)) | {field.name: field.default for field in fields(Flow)}
    assert told == {name: value for name, value in defaults.items() if name in told}
    for kind in (Ddpm, Flow):
        own = options_for(kind, told)
        assert own and own.keys() <= {field.name for field in fields(kind)}
    assert options_for(Ddpm, told).keys() | options_for(Flow, told).keys() == told.keys()
    for options in EVERYTHING:
        Ddpm(ALPHAS_T, "v_prediction", **options_for(Ddpm, NoiseSettings(**options).objective_options()))


# With models


def batch(family: Any, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(2, 3, tiny.HEIGHT, tiny.WIDTH, generator=generator) * 2 - 1
    with torch.no_grad():
        cond = family.encode_captions(["a b", "c"], torch.zeros(2, 6))
    return Batch(family.encode_images(pixels, generators(seed, 10 + seed)), cond)


def test_the_loss_is_the_weighted_squared_error() -> None:
    family = FAMILIES["sd1"](tiny.pipeline())
    one, objective = batch(family, 0), family.objective(snr_gamma=2.0)
    got = denoising_loss(family, objective, one, generators(5, 6))
    noised = objective.noise(one.latents_BCHW, generators(5, 6))
    answer = family.model(noised.noisy_BCHW, noised.time_B, one.cond["text"]).sample
    byhand = sum(noised.weight_B[i] * ((answer[i] - noised.target_BCHW[i]) ** 2).mean() for i in range(2)) / 2
    torch.testing.assert_close(got, byhand)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_prior_is_added_with_its_weight(weight: float) -> None:
    family = FAMILIES["sd1"](tiny.pipeline())
    subject, prior, objective = batch(family, 0), batch(family, 1), family.objective()
    own = generators(5, 6)
    a, b = (denoising_loss(family, objective, part, own) for part in (subject, prior))
    both = Batch(subject.latents_BCHW, subject.cond, prior=prior)
    got = DreamBooth(prior_weight=weight).loss(family, objective, both, generators(5, 6))
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
            draws = [
                denoising_loss(run.family, run.objective, probe, generators(*range(5 * s, 5 * s + 5))).item() for s in range(20)
            ]
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
