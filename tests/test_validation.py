"""Validation is one number that is comparable with the next: the same pictures, levels and noise, whatever else goes on.

Shape suffixes: B batch, R G pixel height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
import toyset
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.families import FAMILIES, Family
from hf_diffusion_kit.methods import Batch, Lora
from hf_diffusion_kit.training.ema import Ema
from hf_diffusion_kit.training.processes import Processes
from hf_diffusion_kit.training.randomness import stream
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.stopping import best_step, should_stop
from hf_diffusion_kit.training.trainer import Trainer
from hf_diffusion_kit.training.validation import Held, Validation, held_out

WORDS = ("a cat", "the cat", "b")


def family(name: str = "sd1", *, dropout: float = 0.0) -> tuple[Family, dict[str, torch.nn.Parameter]]:
    """With an adapter that does something."""
    made = FAMILIES[name](tiny.pipeline(name))
    trained = Lora(rank=2, dropout=dropout).adapt(made, seed=0)
    weights = {f"{part.part}.{key}": p for part in trained for key, p in part.parameters.items()}
    for index, parameter in enumerate(weights.values()):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.1
    return made, weights


def held(of: Family, ids: Sequence[str] = ("p0", "p1", "p2")) -> list[Held]:
    def batch(place: int) -> Batch:
        pixels_B3RG = torch.rand(1, 3, *tiny.size(of.pipe), generator=torch.Generator().manual_seed(place)) * 2 - 1
        geometry_B6 = torch.tensor([[tiny.HEIGHT, tiny.WIDTH, 0, 0, tiny.HEIGHT, tiny.WIDTH]])
        return Batch(of.posterior(pixels_B3RG).mean_BCHW, of.encode_captions([WORDS[place]], geometry_B6))

    return [Held(image_id, lambda place=place: batch(place)) for place, image_id in enumerate(ids)]  # type: ignore[misc]


def validation(of: Family, **options: object) -> Validation:
    return Validation(of, of.objective(), held(of), seed=3, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_it_is_the_weighted_error_at_the_middles_of_the_strata(gamma: float | None) -> None:
    made, _ = family()
    objective = made.objective(snr_gamma=gamma)
    pictures = held(made)
    measured = Validation(made, objective, pictures, seed=3, levels=4).measure()
    assert list(measured.levels) == [125, 375, 625, 875]
    alphas = made.pipe.scheduler.alphas_cumprod
    by_hand = torch.zeros(3, 4)
    for row, picture in enumerate(pictures):
        for column, time in enumerate(measured.levels):
            batch, alpha = picture.batch(), alphas[int(time)]
            noise = torch.randn(batch.latents_BCHW.shape[1:], generator=stream(3, "validation", picture.image_id, column))[None]
            noisy = alpha.sqrt() * batch.latents_BCHW + (1 - alpha).sqrt() * noise
            with torch.no_grad():
                answer = made.predict(noisy, torch.tensor([int(time)]), batch.cond)
            snr = alpha / (1 - alpha)
            by_hand[row, column] = (answer - noise).square().mean() * (1 if gamma is None else (gamma / snr).clamp(max=1))
    torch.testing.assert_close(torch.tensor(list(measured.levels.values())), by_hand.mean(0))
    torch.testing.assert_close(torch.tensor(measured.loss), by_hand.mean())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_bits_in_another_session_and_after_anything_else(name: str) -> None:
    first, _ = family(name, dropout=0.5)
    told = validation(first).measure()
    assert len(told.levels) == 8 and told.loss == float(torch.tensor(told.loss))
    torch.manual_seed(1234)  # what a session has drawn must not matter
    torch.randn(7)
    again, _ = family(name, dropout=0.5)
    assert validation(again).measure() == told
    assert Validation(again, again.objective(), held(again), seed=4).measure() != told


def test_a_mask_weighs_the_places() -> None:
    made, _ = family()
    one = held(made)[0].batch()
    mask_B1HW = torch.zeros_like(one.latents_BCHW[:, :1])
    mask_B1HW[..., 3:] = 1
    heard: list[Tensor] = []
    objective = made.objective()
    error = objective.error
    object.__setattr__(objective, "error", lambda *told: (heard.append(error(*told)), heard[-1])[1])
    masked = Validation(made, objective, [Held("p0", lambda: replace(one, mask_B1HW=mask_B1HW))], seed=3).measure()
    assert list(masked.levels.values()) == pytest.approx(heard[0][..., 3:].mean((1, 2, 3)).tolist(), rel=1e-5)
    assert masked.loss != Validation(made, made.objective(), [Held("p0", lambda: one)], seed=3).measure().loss


def test_nothing_of_the_training_is_touched() -> None:
    made, weights = family(dropout=0.5)
    resting = validation(made).measure()
    made.model.train()
    made.part("text_encoder").eval()
    modes = [module.training for module in made.model.modules()]
    before, random = {name: p.detach().clone() for name, p in weights.items()}, torch.get_rng_state()
    assert validation(made).measure() == resting  # no dropout, whatever mode it was called in
    assert [module.training for module in made.model.modules()] == modes and any(modes)
    assert not made.part("text_encoder").training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], p) and p.grad is None and p.requires_grad for name, p in weights.items())


def test_the_mode_comes_back_when_it_fails() -> None:
    made, _ = family()
    made.model.train()

    def broken() -> Batch:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Validation(made, made.objective(), [Held("p", broken)], seed=0).measure()
    assert made.model.training


def test_averages_are_measured_where_there_are_any() -> None:
    made, weights = family()
    ema = Ema(weights, 0.9)
    at_averages = validation(made).measure()
    for parameter in weights.values():
        parameter.data += 0.1
    bits = {name: p.detach().numpy().tobytes() for name, p in weights.items()}
    assert validation(made).measure() != at_averages
    assert validation(made).measure(averages=ema.swapped()) == at_averages
    assert {name: p.detach().numpy().tobytes() for name, p in weights.items()} == bits


@dataclass(frozen=True)
class Heard(Processes):
    """One of two processes, alone: what it would have told the other."""

    told: list[float] = field(default_factory=list)

    def mean(self, numbers: Sequence[float]) -> list[float]:
        self.told.extend(numbers)
        return list(numbers)


def test_two_processes_measure_each_picture_once() -> None:
    made, _ = family()
    whole, *parts = (Heard(rank, world) for rank, world in ((0, 1), (0, 2), (1, 2)))
    for processes in (whole, *parts):
        validation(made).measure(processes=processes)
    assert all(0 in pair for pair in zip(parts[0].told, parts[1].told, strict=True))
    assert [a + b for a, b in zip(parts[0].told, parts[1].told, strict=True)] == whole.told


def test_a_loss_that_is_not_finite_is_told_as_such() -> None:
    made, weights = family()
    next(iter(weights.values())).data.fill_(float("nan"))
    measured = validation(made).measure()
    assert measured.loss != measured.loss


def test_nothing_held_out_is_refused() -> None:
    made, _ = family()
    with pytest.raises(ConfigError, match="no picture is held out"):
        Validation(made, made.objective(), [], seed=0)


# Which pictures

IDS = [f"{n:012d}" for n in range(40)]


def test_held_out_hangs_on_seed_and_id_alone() -> None:
    train, out = held_out(IDS, 0.25, seed=0)
    assert len(out) == 10 and sorted(train + out) == list(range(40)) and train == sorted(train)
    chosen = {IDS[place] for place in out}
    backwards = IDS[::-1]
    assert {backwards[place] for place in held_out(backwards, 0.25, seed=0)[1]} == chosen
    assert held_out(IDS, 0.25, seed=1)[1] != out
    more = [*IDS, "another", "and another", "one more", "the last"]  # 44 pictures, 11 of them held out
    assert len(chosen - {more[place] for place in held_out(more, 0.25, seed=0)[1]}) <= 4


@pytest.mark.parametrize("share", [1e-9, 0.5, 1.0])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_at_least_one_of_each(share: float, count: int) -> None:
    train, out = held_out(IDS[:count], share, seed=0)
    assert train and out


def test_pictures_of_one_id_stay_together() -> None:
    twice = [name for name in IDS for _ in range(2)]
    train, out = held_out(twice, 0.3, seed=0)
    assert not {twice[place] for place in train} & {twice[place] for place in out}


def test_no_share_holds_out_none_and_one_picture_cannot_be_divided() -> None:
    assert held_out(["a"], 0.0, seed=0) == ([0], [])
    with pytest.raises(ConfigError, match="cannot be divided") as caught:
        held_out(["a", "a"], 0.5, seed=0)
    assert caught.value.exit_code == 2


# Best, and enough

NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "best"),
    [([], None), ([3.0], 100), ([3.0, 2.0, 2.5], 200), ([2.0, 2.0], 100), ([NAN, 5.0, float("inf")], 200), ([NAN], None)],
)
def test_the_best_is_the_earliest_of_the_lowest(losses: list[float], best: int | None) -> None:
    assert best_step([(100 * (n + 1), loss) for n, loss in enumerate(losses)]) == best


def test_a_run_stops_after_so_many_measurements_without_a_better_one() -> None:
    losses = [5.0, 4.0, 4.1, 4.2, 3.999, 4.0, 4.0, NAN]
    history = [(100 * (n + 1), loss) for n, loss in enumerate(losses)]
    assert [should_stop(history[: n + 1], 2) for n in range(8)] == [False, False, False, True, False, False, True, True]
    assert [should_stop(history[: n + 1], 3) for n in range(8)] == [False] * 7 + [True]
    assert not should_stop(history, None) and not should_stop([], 1)
    assert should_stop([(1, NAN), (2, NAN)], 2)


def test_the_noise_of_a_picture_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = family()
    pictures = held(made)
    forwards = Validation(made, made.objective(), pictures, seed=3).measure()
    backwards = Validation(made, made.objective(), pictures[::-1], seed=3).measure()
    assert forwards.loss == pytest.approx(backwards.loss, rel=1e-6)
    heard: list[Tensor] = []
    predict = made.predict
    monkeypatch.setattr(made, "predict", lambda noisy, time, cond: (heard.append(noisy), predict(noisy, time, cond))[1])
    same = [Held("p0", pictures[0].batch), Held("p9", pictures[0].batch)]
    Validation(made, made.objective(), same, seed=3, levels=1).measure()
    assert not torch.equal(*heard)


@pytest.mark.parametrize("crop", ["random", "smart"])
def test_held_out_pictures_are_asked_before_the_vae_leaves(crop: str, tmp_path: Path) -> None:
    """They are measured in their middle, whatever windows, flips and captions the others are trained with."""
    tiny.pipeline().save_pretrained(tmp_path / "base")
    made = FAMILIES["sd1"].open(tmp_path / "base")
    data = load_captioned(toyset.folder(tmp_path / "data", size=(48, 20)))
    settings = TrainSettings(
        steps=2, resolution=(tiny.HEIGHT, tiny.WIDTH), crop=crop, random_flip=True, validation_share=0.4, checkpointing_steps=0
    )
    run = Trainer(made, Lora(rank=2), settings, data, say=lambda _: None, progress=False)
    run.fill()
    assert made.part("vae").device.type == "meta"
    before = run.measure()
    run.step()
    assert 0 < before < 10 and run.measure() != before
