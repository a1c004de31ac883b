"""The losses of a run as a picture, drawn anew at each checkpoint: training, validation, learning rate, where it was resumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from ..sheet import FRAME, GREY, INK
from ..sheet import _font as typeface

SIZE = (1200, 700)
"""Pixels of the page, width and height."""
FINE = 3
"""Curves are drawn so many times larger and reduced, for Pillow draws steps where a line should be smooth."""
RAW, SMOOTH, HELD = "#c3d7ea", "#1f5c99", "#c2571a"
"""Colours: training loss, its smoothed curve, validation."""
RATES = ("#3f7d58", "#7d5ba6", "#a8792b", "#5f6b7a")
GRID = "#eeeef1"
LOG_FROM = 10.0
"""The loss has a logarithmic axis when its largest shown value is so many times its smallest."""
WIDTH = 0.02
"""Width of the smoothing, as a share of the run shown."""

Point = tuple[float, float]


class Logged(Protocol):
    """A line of a run's log, as training/progress.py writes it."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def lr(self) -> Mapping[str, float]: ...
    @property
    def validation(self) -> float | None: ...
    @property
    def resumed(self) -> int | None: ...


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end, 1 at the high end; what is beyond lies on the edge."""
        low, high, value = (log10(v) if self.logarithmic else v for v in (self.low, self.high, self.clip(value)))
        return (value - low) / (high - low)

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self, about: int) -> list[float]:
        """Round numbers within the axis: steps of 1, 2 or 5, or on a logarithmic one 1, 2 and 5 of each power of ten."""
        if self.logarithmic:
            powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [d * 10.0**p for p in powers for d in digits]
                found = [value for value in found if self.low <= value <= self.high * 1.0001]
                if len(found) <= about + 2:
                    break
            return found
        step = round_up((self.high - self.low) / max(1, about))
        first = ceil(self.low / step - 1e-6)
        return [n * step for n in range(first, floor(self.high / step + 1e-6) + 1)]


@dataclass(frozen=True)
class Panel:
    """A rectangle of the page in which steps go right and values up."""

    left: int
    top: int
    right: int
    bottom: int
    steps: Axis
    values: Axis

    def at(self, step: float, value: float) -> Point:
        x = self.left + self.steps.share(step) * (self.right - self.left)
        return x, self.bottom - self.values.share(value) * (self.bottom - self.top)


def save_plot(lines: Sequence[Logged], path: Path, *, title: str = "") -> Path:
    """As a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".tmp-{path.name}")
    loss_plot(lines, title=title).save(half, format="PNG")
    return half.replace(path)


def loss_plot(lines: Sequence[Logged], *, title: str = "") -> Image.Image:
    """The page, 1200 x 700 pixels. A run without a step yet has an empty one."""
    losses = [(line.step, line.loss) for line in lines if line.loss is not None]
    held = [(line.step, line.validation) for line in lines if line.validation is not None]
    smooth = list(zip([step for step, _ in losses], smoothed([loss for _, loss in losses]), strict=True))
    rates = curves_of_rates(lines)
    steps = Axis(0, max([line.step for line in lines], default=1) or 1)
    values = axis([loss for _, loss in losses], [value for _, value in (*smooth, *held)])
    main = Panel(88, 112, SIZE[0] - 32, 492, steps, values)
    highest = max([rate for curve in rates.values() for _, rate in curve], default=0.0)
    below = Panel(88, 552, SIZE[0] - 32, 634, steps, Axis(0, highest * 1.1 or 1.0))

    page = Image.new("RGB", (SIZE[0] * FINE, SIZE[1] * FINE), "white")
    fine = ImageDraw.Draw(page)
    rule(fine, main, 7)
    rule(fine, below, 2)
    resumed = [line.resumed for line in lines if line.resumed is not None]
    for step in resumed:
        dashes(fine, main, step)
    line_of(fine, main, losses, RAW, 1.2)
    line_of(fine, main, smooth, SMOOTH, 2.2)
    line_of(fine, main, held, HELD, 1.4)
    best = min(held, key=lambda point: point[1], default=None)
    for point in held if len(held) <= 60 else [best] if best else []:
        dot(fine, main.at(*point), 3.6, HELD)
    if best:
        dot(fine, main.at(*best), 7.0, None, outline=HELD)
    for colour, curve in zip(colours(len(rates)), rates.values(), strict=True):
        line_of(fine, below, curve, colour, 1.8)
    page = page.reduce(FINE)

    draw = ImageDraw.Draw(page)
    draw.text((32, 22), fitted(draw, title or "Loss", 24, SIZE[0] - 64), INK, typeface(24))
    draw.text((32, 56), summary(lines, smooth, held), GREY, typeface(15))
    draw.text((32, 84), "loss, logarithmic" if values.logarithmic else "loss", GREY, typeface(13))
    draw.text((32, 524), "learning rate", GREY, typeface(13))
    legend(draw, 84, [(RAW, "training"), (SMOOTH, "smoothed"), *([(HELD, "validation")] if held else [])])
    if len(rates) > 1:
        legend(draw, 524, list(zip(colours(len(rates)), rates, strict=True)))
    if not lines:
        middle = ((main.left + main.right) / 2, (main.top + main.bottom) / 2)
        draw.text(middle, "no step yet", GREY, typeface(15), anchor="mm")
    else:
        numbers(draw, main, 7)
        numbers(draw, below, 2)
        across(draw, below)
    if beyond := sum(values.clip(loss) != loss for _, loss in losses):
        told = f"{beyond:,} of {len(losses):,} losses lie beyond the axis, drawn on its edge"
        draw.text((main.right, main.bottom + 8), told, GREY, typeface(12), anchor="ra")
    for step, far in zip(resumed, spaced([main.at(step, values.low)[0] for step in resumed], 84), strict=True):
        if far:
            name(draw, main, (main.at(step, values.low)[0], main.top + 2), "resumed", GREY)
    if best:
        x, y = main.at(*best)
        nearest = min(smooth, key=lambda point: abs(point[0] - best[0]), default=best)
        below_it = (nearest[1] > best[1] or y < main.top + 40) and y < main.bottom - 40  # away from the other curve
        name(draw, main, (x, y + 11 if below_it else y - 28), f"best {best[1]:.4g}", HELD)
    return page


def summary(lines: Sequence[Logged], smooth: Sequence[Point], held: Sequence[Point]) -> str:
    told = [f"step {lines[-1].step:,}"] if lines else []
    told += [f"loss {smooth[-1][1]:.4g}"] if smooth else []
    if held:
        step, value = min(held, key=lambda point: point[1])
        told.append(f"validation {held[-1][1]:.4g}, best {value:.4g} at step {step:,.0f}")
    if lost := sum(line.loss is None for line in lines if line.step):
        told.append(f"{lost:,} of {len(lines):,} without a finite loss")
    return "   ·   ".join(told)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Each value averaged with its neighbours on both sides, near ones more (a bell curve): no lag, and at its ends no pull to 0."""
    if len(losses) < 3:
        return list(losses)
    width = max(1.0, WIDTH * len(losses))
    reach = min(ceil(3 * width), len(losses) - 1)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    middle = slice(reach, reach + len(losses))
    return (np.convolve(losses, bell)[middle] / np.convolve(np.ones(len(losses)), bell)[middle]).tolist()


def axis(raw: Sequence[float], shown: Sequence[float]) -> Axis:
    """All smoothed and held-out losses and 98 in 100 single ones. Logarithmic where they span more than one power of ten."""
    if not shown:
        return Axis(0, 1)
    ends = [float(np.percentile(raw, share)) for share in (1, 99)] if raw else []
    low, high = min(*shown, *ends), max(*shown, *ends)
    if min(shown) > 0 and max(shown) / min(shown) > LOG_FROM:
        positive = [value for value in (*raw, *shown) if value > 0]
        return Axis(max(low, min(positive), high * 1e-6) / 1.15, high * 1.15, logarithmic=True)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    bottom = 0.0 if 0 <= low < 0.25 * high else low - room
    return Axis(bottom, high + room)


def curves_of_rates(lines: Sequence[Logged]) -> dict[str, list[Point]]:
    """Name -> its learning rate over the steps; parts whose rate is the same all along share a curve."""
    curves: dict[str, list[Point]] = {}
    for line in lines:
        for part, rate in line.lr.items():
            if isfinite(rate):
                curves.setdefault(part, []).append((line.step, rate))
    alike: dict[tuple[Point, ...], list[str]] = {}
    for part, curve in curves.items():
        alike.setdefault(tuple(curve), []).append(part)
    return {", ".join(parts): list(curve) for curve, parts in alike.items()}


# Marks, on the fine page


def rule(draw: ImageDraw.ImageDraw, panel: Panel, about: int) -> None:
    for value in panel.values.ticks(about):
        _, y = panel.at(0, value)
        draw.line(fine((panel.left, y), (panel.right, y)), GRID, FINE)
    draw.line(fine((panel.left, panel.bottom), (panel.right, panel.bottom)), FRAME, FINE)


def line_of(draw: ImageDraw.ImageDraw, panel: Panel, points: Sequence[Point], colour: str, width: float) -> None:
    places = [panel.at(*point) for point in points]
    if len(places) == 1:
        dot(draw, places[0], width * 1.6, colour)
    elif places:
        draw.line(fine(*places), colour, round(width * FINE), joint="curve")


def dashes(draw: ImageDraw.ImageDraw, panel: Panel, step: float) -> None:
    x, _ = panel.at(step, panel.values.low)
    for y in range(panel.top, panel.bottom, 9):
        draw.line(fine((x, y), (x, min(y + 5, panel.bottom))), "#b4b4bb", FINE)


def dot(draw: ImageDraw.ImageDraw, place: Point, radius: float, fill: str | None, *, outline: str | None = None) -> None:
    (x, y), r = place, radius
    draw.ellipse(fine((x - r, y - r), (x + r, y + r)), fill, outline, round(1.6 * FINE))


def fine(*places: Point) -> list[Point]:
    return [(x * FINE, y * FINE) for x, y in places]


# Words, on the page as it will be


def numbers(draw: ImageDraw.ImageDraw, panel: Panel, about: int) -> None:
    ticks = panel.values.ticks(about)
    for value, text in zip(ticks, [f"{v:g}" for v in ticks] if panel.values.logarithmic else written(ticks), strict=True):
        draw.text((panel.left - 10, panel.at(0, value)[1]), text, GREY, typeface(13), anchor="rm")


def across(draw: ImageDraw.ImageDraw, panel: Panel) -> None:
    """Numbers of the steps, whole ones, below a panel."""
    ticks = [step for step in panel.steps.ticks(8) if step == int(step)]
    for step in ticks:
        half = draw.textlength(f"{step:,.0f}", typeface(13)) / 2
        x = min(panel.at(step, 0)[0], panel.right - half)
        draw.text((x, panel.bottom + 8), f"{step:,.0f}", GREY, typeface(13), anchor="ma")
    draw.text((panel.right, panel.bottom + 28), "step", GREY, typeface(13), anchor="ra")


def legend(draw: ImageDraw.ImageDraw, y: int, entries: Sequence[tuple[str, str]]) -> None:
    """Right-aligned, in order."""
    right: float = SIZE[0] - 32
    for colour, text in reversed(entries):
        text = fitted(draw, text, 13, 300)
        draw.text((right, y), text, GREY, typeface(13), anchor="ra")
        right -= draw.textlength(text, typeface(13)) + 8
        draw.line([(right - 18, y + 8), (right, y + 8)], colour, 3)
        right -= 18 + 22


def name(draw: ImageDraw.ImageDraw, panel: Panel, place: Point, text: str, colour: str) -> None:
    """Beside a mark, on its other side where there is no room on the right."""
    x, y = place
    wide = draw.textlength(text, typeface(13))
    x = x - 6 - wide if x + 6 + wide > panel.right else x + 6
    draw.text((x, y), text, colour, typeface(13), stroke_width=3, stroke_fill="white")


def fitted(draw: ImageDraw.ImageDraw, text: str, size: int, width: float) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, typeface(size)) <= width:
        return text
    while text and draw.textlength(f"{text}…", typeface(size)) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def written(values: Sequence[float]) -> list[str]:
    """Numbers of an axis, all with the digits that tell them apart: `0.05, 0.10`, or `5e-5, 1e-4` where they are small."""
    largest = max((abs(value) for value in values), default=0.0)
    for digits in range(8):
        texts = [f"{v:,.{digits}f}" if 1e-3 <= largest < 1e6 else short(v, digits) for v in values]
        if all(abs(float(text.replace(",", "")) - v) <= 1e-6 * largest for text, v in zip(texts, values, strict=True)):
            break
    return texts


def short(value: float, digits: int) -> str:
    number, power = f"{value:.{digits}e}".split("e")
    return f"{number}e{int(power)}" if value else "0"


def round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** floor(log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value * 0.9999)


def spaced(places: Sequence[float], apart: float) -> list[bool]:
    """Which of them have room for a word: those far enough from the last that has one."""
    last, told = float("-inf"), []
    for place in places:
        told.append(place - last >= apart)
        last = place if told[-1] else last
    return told


def colours(count: int) -> list[str]:
    return [RATES[i % len(RATES)] for i in range(count)]
