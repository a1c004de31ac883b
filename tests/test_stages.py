"""Which part learns when, and how fast: the default, a stop for the text side, and fast-DreamBooth's two stages."""

from dataclasses import replace
from typing import Any

import pytest

from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.stages import at, factors, notes, rate, stages

BOTH = ("unet", "text_encoder")
TEXT = ("text_encoder",)
FAST = TrainSettings(
    steps=1850, learning_rate=2e-6, text_encoder_learning_rate=1e-6, text_encoder_steps=350, lr_scheduler="linear"
)


def test_by_default_everything_learns_all_the_time_each_part_at_its_rate() -> None:
    settings = TrainSettings(steps=10, learning_rate=1e-3, text_encoder_learning_rate=1e-5, lr_scheduler="linear")
    (only,) = stages(settings, BOTH, TEXT)
    assert (only.begin, only.end, only.parts, only.forget, only.fresh) == (0, 10, BOTH, (), True)
    assert [rate(only, step, settings, "unet") for step in (0, 5)] == [1e-3, 0.5e-3]
    assert rate(only, 5, settings, "text_encoder") == pytest.approx(0.5e-5)
    assert factors(only, 5, settings) == {"unet": 0.5, "text_encoder": 0.5}


def test_the_text_side_stops_and_the_schedule_goes_on() -> None:
    settings = TrainSettings(steps=10, learning_rate=1e-3, text_encoder_stop_step=4, lr_scheduler="linear")
    both, alone = stages(settings, BOTH, TEXT)
    assert (both.parts, both.begin, both.end) == (BOTH, 0, 4)
    assert (alone.parts, alone.begin, alone.end, alone.fresh, alone.forget) == (("unet",), 4, 10, False, ())
    assert set(alone.rates) == set(BOTH), "the optimizer still holds both"
    rates = [rate(at((both, alone), step), step, settings, "unet") for step in range(10)]
    assert rates == pytest.approx([1e-3 * (1 - step / 10) for step in range(10)])
    assert rate(both, 3, settings, "text_encoder") > 0 == rate(alone, 4, settings, "text_encoder")


def test_text_first_and_then_the_denoiser_each_with_a_schedule_of_its_own() -> None:
    text, rest = stages(FAST, BOTH, TEXT)
    assert (text.parts, text.begin, text.end, text.forget) == (TEXT, 0, 350, ())
    assert (rest.parts, rest.begin, rest.end, rest.fresh) == (("unet",), 350, 1850, True)
    assert rate(text, 0, FAST, "text_encoder") == 1e-6 and rate(text, 0, FAST, "unet") == 0
    assert rate(text, 349, FAST, "text_encoder") == pytest.approx(1e-6 / 350)
    assert rate(rest, 350, FAST, "unet") == 2e-6
    assert rate(rest, 1849, FAST, "unet") == pytest.approx(2e-6 / 1500)
    assert set(rest.rates) == {"unet"}


def test_fast_dreambooth_as_it_was() -> None:
    settings = replace(FAST, first_stage="joint")
    joint, rest = stages(settings, BOTH, TEXT)
    assert (joint.parts, joint.forget) == (BOTH, ("unet",))
    assert rate(joint, 0, settings, "unet") == rate(joint, 0, settings, "text_encoder") == 1e-6
    assert rest == stages(FAST, BOTH, TEXT)[1]


def test_new_tokens_are_on_the_text_side_and_have_a_rate_of_their_own() -> None:
    parts = ("unet", "text_encoder", "tokens")
    settings = TrainSettings(steps=10, text_encoder_learning_rate=1e-5, token_learning_rate=1e-2, text_encoder_stop_step=5)
    both, alone = stages(settings, parts, TEXT, ("tokens",))
    assert dict(both.rates) == {"unet": 1e-4, "text_encoder": 1e-5, "tokens": 1e-2}
    assert alone.parts == ("unet",)


@pytest.mark.parametrize(
    "options", [{}, {"text_encoder_stop_step": 3}, {"text_encoder_steps": 3}, {"text_encoder_stop_step": 10}]
)
def test_every_step_belongs_to_one_stage_and_a_finished_run_to_the_last(options: dict[str, Any]) -> None:
    told = stages(TrainSettings(steps=10, **options), BOTH, TEXT)
    assert [one.begin for one in told] + [told[-1].end] == [0, *(one.end for one in told)]
    for step in range(10):
        assert at(told, step).begin <= step < at(told, step).end
    assert at(told, 10) is at(told, 99) is told[-1]


@pytest.mark.parametrize(
    ("options", "parts", "said"),
    [
        ({"text_encoder_steps": 10}, BOTH, "text_encoder_steps: must be below steps = 10, got 10"),
        ({"text_encoder_stop_step": 11}, BOTH, "text_encoder_stop_step: must be below steps = 10, got 11"),
        ({"text_encoder_steps": 4}, ("unet",), "the text side is not trained"),
        ({"text_encoder_stop_step": 4}, TEXT, "the denoiser is not trained"),
        ({"first_stage": "joint"}, BOTH, "first_stage: needs text_encoder_steps"),
    ],
)
def test_stages_that_cannot_be_are_refused(options: dict[str, Any], parts: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        stages(TrainSettings(steps=10, **options), parts, TEXT)


def test_what_plays_no_role_is_said() -> None:
    assert notes(FAST, BOTH, TEXT) == []
    told = notes(TrainSettings(steps=10, text_encoder_learning_rate=1e-5, token_learning_rate=1e-3), ("unet",), TEXT)
    assert told == [
        "text_encoder_learning_rate plays no role: nothing is trained at it",
        "token_learning_rate plays no role: nothing is trained at it",
    ]
    told = notes(replace(FAST, lr_warmup_steps=400), BOTH, TEXT)
    assert told == ["lr_warmup_steps = 400 is more than the 350 steps from step 0; the rate is never reached"]
