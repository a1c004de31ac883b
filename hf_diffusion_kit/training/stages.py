"""Which parts learn when, and at which rate: one stage, or the text side for a while and then the denoiser alone.

Everything here is a function of settings and step. A checkpoint after `done` steps holds the optimizer of `at(stages, done - 1)`; the
change-over to the next stage belongs to that stage's first step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from .rates import factor
from .settings import TrainSettings


@dataclass(frozen=True)
class Stage:
    begin: int
    """Its first step."""
    end: int
    """The step after its last one."""
    parts: tuple[str, ...]
    """Parts that learn; all others keep their weights, and must have no gradients."""
    rates: Mapping[str, float]
    """Part -> base rate, of all parts that its optimizer holds. A stage that goes on with an optimizer holds parts that learn no more."""
    curve: tuple[int, int]
    """First step and end of its learning-rate schedule."""
    fresh: bool = True
    """Whether it begins with a new optimizer; moments and schedule of the stage before are then forgotten."""
    forget: tuple[str, ...] = ()
    """Parts that are set back to the base's weights at its end."""


def stages(
    settings: TrainSettings, parts: Sequence[str], text_parts: Sequence[str] = (), token_parts: Sequence[str] = ()
) -> tuple[Stage, ...]:
    """The stages of a run that trains `parts`; `text_parts` and `token_parts` are those of them on the text side.

    Raises ConfigError when a stage is longer than the run or has nothing to train.
    """
    text = [part for part in parts if part in text_parts or part in token_parts]
    other = [part for part in parts if part not in text]
    own = {part: base_rate(settings, part, text_parts, token_parts) for part in parts}
    whole, first, stop = (0, settings.steps), settings.text_encoder_steps, settings.text_encoder_stop_step
    if first is None and settings.first_stage != "text":
        fix = "set text_encoder_steps, the length of the first stage, or leave it out"
        raise ConfigError("needs text_encoder_steps", where="training: first_stage", fix=fix, case=1)
    if first is not None:
        _two_sides("text_encoder_steps", text, other)
        _inside("text_encoder_steps", first, settings.steps, "leave steps for the denoiser")
        rest = Stage(first, settings.steps, tuple(other), {part: own[part] for part in other}, (first, settings.steps))
        if settings.first_stage == "text":
            return Stage(0, first, tuple(text), {part: own[part] for part in text}, (0, first)), rest
        # fast-DreamBooth's first run trained both at the text side's rate, and kept of it the text encoder alone
        rates = {part: own[part] if part in text else own[text[0]] for part in parts}
        return Stage(0, first, tuple(parts), rates, (0, first), forget=tuple(other)), rest
    if stop is not None:
        _two_sides("text_encoder_stop_step", text, other)
        if stop != settings.steps:
            _inside("text_encoder_stop_step", stop, settings.steps, "the text side learns to the end without it")
            return Stage(0, stop, tuple(parts), own, whole), Stage(stop, settings.steps, tuple(other), own, whole, fresh=False)
    return (Stage(0, settings.steps, tuple(parts), own, whole),)


def at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage that a step belongs to; the last one for all that come after it."""
    return next((stage for stage in stages if step < stage.end), stages[-1])


def factors(stage: Stage, step: int, settings: TrainSettings) -> dict[str, float]:
    """Part -> factor of its base rate at a step, for `optimizers.set_rates`: the same for all parts of a stage."""
    begin, end = stage.curve
    return dict.fromkeys(stage.rates, factor(settings, step - begin, end - begin))


def rate(stage: Stage, step: int, settings: TrainSettings, part: str) -> float:
    """Learning rate of a part at a step; 0 where it does not learn."""
    return stage.rates[part] * factors(stage, step, settings)[part] if part in stage.parts else 0.0


def base_rate(settings: TrainSettings, part: str, text_parts: Sequence[str], token_parts: Sequence[str]) -> float:
    own = settings.token_learning_rate if part in token_parts else None
    if part in text_parts and part not in token_parts:
        own = settings.text_encoder_learning_rate
    return settings.learning_rate if own is None else own


def notes(
    settings: TrainSettings, parts: Sequence[str], text_parts: Sequence[str] = (), token_parts: Sequence[str] = ()
) -> list[str]:
    """Rates that are set and play no role, a sentence each."""
    told = []
    for name, sides in (("text_encoder_learning_rate", set(text_parts) - set(token_parts)), ("token_learning_rate", token_parts)):
        if getattr(settings, name) is not None and not set(sides) & set(parts):
            told.append(f"{name} plays no role: nothing is trained at it")
    for stage in stages(settings, parts, text_parts, token_parts):
        begin, end = stage.curve
        if settings.lr_warmup_steps > end - begin:
            told.append(
                f"lr_warmup_steps = {settings.lr_warmup_steps} is more than the {end - begin} steps from step {begin}; the rate is never reached"
            )
    return list(dict.fromkeys(told))


def _two_sides(name: str, text: Sequence[str], other: Sequence[str]) -> None:
    if not text or not other:
        missing = "the text side" if not text else "the denoiser"
        raise ConfigError(
            f"parts the text side from the denoiser, and {missing} is not trained by this method",
            where=f"training: {name}",
            fix="leave it out, or train both (e.g. text_encoder = true)",
            case=1,
        )


def _inside(name: str, step: int, steps: int, fix: str) -> None:
    if step >= steps:
        raise ConfigError(f"must be below steps = {steps}, got {step}", where=f"training: {name}", fix=fix, case=1)
