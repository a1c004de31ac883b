"""What a user sees while a run runs: the bar, log.jsonl, the plot of the losses, the growing sheet, the trackers."""

import json
import random
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from hf_diffusion_kit.errors import ConfigError, StorageError
from hf_diffusion_kit.evaluation import Shot, draw, plot
from hf_diffusion_kit.evaluation import progress_sheet as sheets
from hf_diffusion_kit.training import trackers
from hf_diffusion_kit.training.progress import Line, Log, Smoothed, beside, memory, read_log

NAN = float("nan")


# The log


def session(path: Path, losses: list[float], begin: int, end: int, *, steps: int = 6000, validate: int = 5) -> Log:
    """What the loop does from one step to another. 6000 steps have a line every 3."""
    log, smooth = Log(path, steps), Smoothed(losses[:begin])
    log.begin(begin)
    for step in range(begin + 1, end + 1):
        smoothed = smooth.add(losses[step - 1])
        validation = losses[step - 1] / 2 if step % validate == 0 else None
        if log.due(step) or validation is not None:
            log.write(losses[:step], {"unet": 1e-4 / step}, 0.1 * step, 1000, smoothed=smoothed, validation=validation)
    log.sync()
    return log


LOSSES = [random.Random(0).lognormvariate(-2, 0.5) for _ in range(30)]


def same(lines: list[Line]) -> list[tuple[Any, ...]]:
    return [(line.step, line.loss, line.smoothed, line.lr, line.validation) for line in lines]


@pytest.mark.parametrize("stop", range(1, 31))
def test_a_resumed_runs_log_is_that_of_one_that_never_stopped(stop: int, tmp_path: Path) -> None:
    session(tmp_path / "whole", LOSSES, 0, 30)
    whole = read_log(tmp_path / "whole")
    assert [line.step for line in whole] == [3, 5, 6, 9, 10, 12, 15, 18, 20, 21, 24, 25, 27, 30]
    session(tmp_path / "log", LOSSES, 0, min(30, stop + 4))  # killed four steps after its last checkpoint
    session(tmp_path / "log", LOSSES, stop, 30)
    lines = read_log(tmp_path / "log")
    assert same(lines) == same(whole)
    assert [line.resumed for line in lines if line.resumed] == ([stop] if stop < 30 else [])


def test_a_line_tells_the_mean_since_the_one_before(tmp_path: Path) -> None:
    losses = [1.0, 2.0, 6.0, NAN, 4.0, NAN, NAN, NAN, NAN]
    session(tmp_path / "log", losses, 0, 9)
    assert [(line.step, line.loss, line.validation) for line in read_log(tmp_path / "log")] == [
        (3, 3.0, None),
        (5, 4.0, 2.0),
        (6, None, None),
        (9, None, None),
    ]

    def strict(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    for text in (tmp_path / "log").read_text().splitlines():
        json.loads(text, parse_constant=strict)


def test_begin_tells_how_far_the_log_was_and_a_new_run_has_none_of_it(tmp_path: Path) -> None:
    log = session(tmp_path / "log", LOSSES, 0, 12)
    assert log.begin(6) == 12 and [line.step for line in read_log(tmp_path / "log")] == [3, 5, 6]
    assert log.begin(0) == 6 and read_log(tmp_path / "log") == []
    assert Log(tmp_path / "new" / "log", 10).begin(0) == 0


def test_a_line_that_was_cut_short_is_no_line(tmp_path: Path) -> None:
    session(tmp_path / "log", LOSSES, 0, 9)
    raw = (tmp_path / "log").read_bytes()
    last = raw.rstrip(b"\n").rindex(b"\n") + 1
    for length in range(last, len(raw)):
        (tmp_path / "log").write_bytes(raw[:length])
        assert [line.step for line in read_log(tmp_path / "log")] == [3, 5, 6]
        session(tmp_path / "log", LOSSES, 6, 9)
        assert [line.step for line in read_log(tmp_path / "log")] == [3, 5, 6, 9]


@pytest.mark.parametrize(
    "text",
    ["null", "[]", '{"step": "x", "loss": 1}', '{"loss": 1}', "{", "\x00\x01", '{"step": 4, "loss": "x", "lr": [1], "new": {}}'],
)
def test_what_others_wrote_into_it_breaks_nothing(text: str, tmp_path: Path) -> None:
    session(tmp_path / "log", LOSSES, 0, 6)
    with (tmp_path / "log").open("a") as file:
        file.write(text + "\n")
    lines = read_log(tmp_path / "log")
    assert {3, 5, 6} <= {line.step for line in lines}
    plot.loss_plot(lines)
    session(tmp_path / "log", LOSSES, 6, 9)


def test_a_full_disk_costs_no_line_and_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session(tmp_path / "whole", LOSSES, 0, 30)
    heard: list[str] = []
    log = Log(tmp_path / "log", 6000, say=heard.append)
    log.begin(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    smooth = Smoothed()
    try:
        for step in range(1, 31):
            if step in (7, 20):  # room for a part of the next line; then for all
                resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log").stat().st_size + 17 if step == 7 else soft, hard))
            smoothed, validation = smooth.add(LOSSES[step - 1]), LOSSES[step - 1] / 2 if step % 5 == 0 else None
            if log.due(step) or validation is not None:
                log.write(LOSSES[:step], {"unet": 1e-4 / step}, 0.1 * step, 1000, smoothed=smoothed, validation=validation)
                assert (tmp_path / "log").read_bytes().endswith(b"}\n")
                assert (len(read_log(tmp_path / "log")) == 3) == (6 <= step < 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert same(read_log(tmp_path / "log")) == same(read_log(tmp_path / "whole"))
    assert len(heard) == 1 and heard[0].startswith("log cannot be written now")


def test_a_log_that_cannot_be_begun_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        Log(tmp_path / "file" / "log.jsonl", 10).begin(0)
    assert caught.value.exit_code == 5


def test_long_runs_have_about_two_thousand_lines() -> None:
    assert [Log(Path("x"), steps).every for steps in (1, 2000, 2001, 100_000)] == [1, 1, 2, 50]


# The bar


def test_the_smoothed_loss_is_not_drawn_to_zero() -> None:
    assert Smoothed().value != Smoothed().value  # nan
    smooth = Smoothed()
    assert [smooth.add(3.0) for _ in range(5)] == pytest.approx([3.0] * 5)
    assert smooth.add(NAN) == pytest.approx(3.0)
    assert 2.0 < smooth.add(0.0) < 3.0
    assert Smoothed(LOSSES).value == [smooth := Smoothed(), [smooth.add(loss) for loss in LOSSES]][1][-1]
    far = Smoothed([5.0] + [1.0] * 400)
    assert far.value == pytest.approx(1.0, abs=0.01)


def test_the_words_beside_the_bar() -> None:
    assert beside(0.12345, {"unet": 1e-4}, 2_140_000_000) == "loss 0.1235, lr 1.0e-04, 2.1 GB"
    told = beside(0.1, {"unet": 1e-4, "text_encoder": 5e-5, "text_encoder_2": 5e-5}, 10**9, 0.2)
    assert told == "loss 0.1000, validation 0.2000, lr 1.0e-04 5.0e-05, 1.0 GB"


def test_memory_is_that_of_this_process() -> None:
    before = memory(torch.device("cpu"))
    block = np.ones(50_000_000)  # 400 MB
    assert 350e6 < memory(torch.device("cpu")) - before < 600e6
    assert block.all() and 100e6 < before < 20e9


# The plot


def lines(count: int, *, kind: str = "level", every: int = 1, validate: int = 0, resumed: tuple[int, ...] = ()) -> list[Line]:
    draw, told = random.Random(count), []
    for step in range(every, count + 1, every):
        about = 0.1 if kind == "level" else 2.0 * np.exp(-8 * step / count) + 1e-3 if kind == "falling" else 0.0
        loss = about * draw.lognormvariate(0, 0.4)
        validation = about if validate and step % validate == 0 else None
        mark = next((begin for begin in resumed if begin < step <= begin + every), None)
        told.append(Line(step, float(loss), 0.1, {"unet": 1e-4 * step / count}, 1.0, 1, validation, mark))
    return told


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), np.int16)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def inked(picture: Image.Image, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.int16)
    return int((np.abs(pixels(picture) - wanted).max(-1) < 24).sum())


@pytest.mark.parametrize(
    "told",
    [
        [],
        lines(1),
        lines(2),
        lines(1000, validate=100, resumed=(300, 310, 995)),
        lines(100_000, every=50, kind="falling", validate=500),
        lines(50, kind="zero"),
        [Line(7, None, None, {}, 1.0, 1)],
        [Line(7, 1e9, 1.0, {"unet": 0.0}, 1.0, 1, 1e-9, 6), Line(8, -3.0, 1.0, {"a" * 80: 1e3}, 1.0, 1)],
    ],
    ids=["none", "one", "two", "thousand", "long", "zero", "lost", "odd"],
)
def test_every_run_has_a_plot_and_nothing_is_cut_off(told: list[Line]) -> None:
    page = plot.loss_plot(told, title="cats: " + "a very long name " * 20)
    assert page.size == (1200, 700)
    seen = pixels(page)
    for edge in (seen[:10], seen[-10:], seen[:, :10], seen[:, -10:]):
        assert (edge == 255).all()
    assert np.array_equal(seen, pixels(plot.loss_plot(told, title="cats: " + "a very long name " * 20)))


def test_what_is_there_is_drawn() -> None:
    bare, held = plot.loss_plot(lines(500)), plot.loss_plot(lines(500, validate=50))
    assert inked(bare, plot.SMOOTH) > 1000 and inked(bare, plot.RAW) > 5000 and inked(bare, plot.RATES[0]) > 500
    assert inked(bare, plot.HELD) == 0 and inked(held, plot.HELD) > 1000
    marked = plot.loss_plot(lines(500, resumed=(250,)))
    differs = np.argwhere((pixels(marked) != pixels(bare)).any(-1))
    assert differs[:, 1].min() >= 88 + 540 - 4 and differs[:, 1].max() < 88 + 540 + 70  # at its middle, with a word


def test_the_axis_is_logarithmic_only_where_that_helps() -> None:
    level, falling = ([line.loss for line in lines(500, kind=kind)] for kind in ("level", "falling"))
    assert not plot.axis(level, plot.smoothed(level)).logarithmic
    assert plot.axis(falling, plot.smoothed(falling)).logarithmic
    assert not plot.axis([0.0, 5.0], [0.0, 5.0]).logarithmic  # there is no place for 0


def test_smoothing_keeps_a_level_and_a_slope() -> None:
    assert plot.smoothed([2.0] * 400) == pytest.approx([2.0] * 400)
    slope = list(np.linspace(0, 1, 400))
    assert plot.smoothed(slope)[50:350] == pytest.approx(slope[50:350])
    noisy = [1 + draw for draw in np.random.default_rng(0).normal(size=400)]
    assert np.std(plot.smoothed(noisy)) < 0.3


def test_ticks_are_round_within_the_axis_and_told_apart() -> None:
    draw = random.Random(0)
    for _ in range(500):
        low = draw.choice([0.0, 10 ** draw.uniform(-7, 4)])
        high = low + (low or 10 ** draw.uniform(-6, 5)) * 10 ** draw.uniform(-2, 2)
        for axis in (plot.Axis(low, high), plot.Axis(max(low, 1e-9), max(low, 1e-9) * 20, logarithmic=True)):
            ticks = axis.ticks(7)
            assert 2 <= len(ticks) <= 10
            assert all(axis.low * 0.999 <= tick <= axis.high * 1.001 for tick in ticks)
            assert all(0 <= axis.share(tick) <= 1 for tick in ticks) and ticks == sorted(ticks)
            texts = plot.written(ticks)
            assert len(set(texts)) == len(texts), (axis, texts)
            assert [float(text.replace(",", "")) for text in texts] == pytest.approx(ticks, rel=1e-5, abs=1e-12)
            assert max(map(len, texts)) <= 9, texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.0, 0.1, 0.2], ["0.0", "0.1", "0.2"]),
        ([0.05, 0.1], ["0.05", "0.10"]),
        ([0, 5e-5, 1e-4], ["0", "5e-5", "1e-4"]),
        ([2.5e-5, 5e-5], ["2.5e-5", "5.0e-5"]),
        ([0.0051, 0.0052], ["0.0051", "0.0052"]),
        ([0, 5000, 10000], ["0", "5,000", "10,000"]),
    ],
)
def test_numbers_are_written_as_people_write_them(values: list[float], texts: list[str]) -> None:
    assert plot.written(values) == texts


def test_a_plot_is_saved_whole(tmp_path: Path) -> None:
    path = plot.save_plot(lines(10), tmp_path / "images" / "loss.png", title="ten")
    assert opened(path).size == (1200, 700) and [p.name for p in path.parent.iterdir()] == ["loss.png"]


# The growing sheet

SHOTS = [Shot("a cat", 1000, 2, 1.0, (16, 24)), Shot("", 1001, 2, 1.0, (16, 24))]
COLOURS = ("red", "green", "blue", "black", "yellow", "purple")


def grown(folder: Path, rows: int, shots: list[Shot] = SHOTS, size: tuple[int, int] = (24, 16)) -> list[Path]:
    for row in range(rows):
        written = sheets.add_row(folder, row * 500, shots, [Image.new("RGB", size, COLOURS[row % 6])] * len(shots), title="cats")
    return written


def test_the_sheet_grows_by_a_row_and_shows_the_rows_pictures(tmp_path: Path) -> None:
    heights = []
    for rows in (1, 2, 3):
        written = grown(tmp_path, rows)
        heights.append(opened(tmp_path / sheets.SHEET).height)
    assert heights[0] < heights[1] < heights[2] and heights[2] - heights[1] == heights[1] - heights[0]
    assert [path.name for path in written] == ["step-001000-00.png", "step-001000-01.png"]
    assert all(path.parent == tmp_path / "images" / "samples" for path in written)
    seen = pixels(opened(tmp_path / sheets.SHEET))
    firsts = [np.argwhere((seen == np.array(colour)).all(-1)).min(0) for colour in ((255, 0, 0), (0, 128, 0), (0, 0, 255))]
    assert firsts[0][0] < firsts[1][0] < firsts[2][0]  # base, step 500, step 1,000 from above


def test_prompt_and_seed_stand_in_each_picture(tmp_path: Path) -> None:
    pipe = tiny.pipeline()
    first, second = sheets.add_row(tmp_path, 500, SHOTS, draw(pipe, SHOTS))
    with Image.open(first) as picture:
        assert (picture.info["prompt"], picture.info["seed"], picture.size) == ("a cat", "1000", (24, 16))
    with Image.open(second) as picture:
        assert (picture.info["prompt"], picture.info["seed"]) == ("", "1001")
    odd = [Shot("ein Bär\n“grün” 🐻", 5, 2, 1.0, (16, 24))]
    sheets.add_row(tmp_path / "odd", 0, odd, [Image.new("RGB", (24, 16))])
    assert list(sheets.chosen(tmp_path / "odd", odd)[0]) == [0]


@pytest.mark.parametrize(("rows", "columns"), [(60, 2), (2, 40), (21, 33)])
def test_the_sheet_stays_below_4096_pixels_and_says_what_it_leaves_out(rows: int, columns: int, tmp_path: Path) -> None:
    shots = [Shot(f"prompt {n}", n, 2, 1.0, (16, 16)) for n in range(columns)]
    for row in range(rows - 1):  # the sheet of all but the last row need not be drawn
        for n, shot in enumerate(shots):
            told = sheets.PngInfo()
            told.add_itxt("prompt", shot.caption)
            told.add_text("seed", str(shot.seed))
            (tmp_path / sheets.SAMPLES).mkdir(parents=True, exist_ok=True)
            sheets.whole(Image.new("RGB", (80, 80)), tmp_path / sheets.SAMPLES / f"step-{row:06d}-{n:02d}.png", told)
    sheets.add_row(tmp_path, rows - 1, shots, [Image.new("RGB", (80, 80))] * columns)
    assert max(opened(tmp_path / sheets.SHEET).size) <= 4096
    shown, notes = sheets.chosen(tmp_path, shots)
    assert len(shown) == min(rows, 20) and min(shown) == 0 and max(shown) == rows - 1
    assert notes == ([f"20 of {rows} rows, evenly chosen"] if rows > 20 else [])


def test_rows_are_thinned_evenly() -> None:
    assert sheets.thinned(range(20), 20) == list(range(20))
    for count in range(21, 200):
        kept = sheets.thinned(range(count), 20)
        gaps = np.diff(kept)
        assert len(set(kept)) == 20 and (kept[0], kept[-1]) == (0, count - 1) and gaps.max() - gaps.min() <= 1


def test_rows_of_other_prompts_and_half_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    grown(tmp_path, 3)
    (tmp_path / sheets.SAMPLES / "step-000500-01.png").unlink()
    (tmp_path / sheets.SAMPLES / "step-000700-00.png").write_bytes(b"no picture")
    shown, notes = sheets.chosen(tmp_path, SHOTS)
    assert list(shown) == [0, 1000] and notes == ["2 rows of other prompts or incomplete left out"]
    other = [Shot("a dog", 1000, 2, 1.0, (16, 24)), SHOTS[1]]
    assert sheets.chosen(tmp_path, other) == ({}, ["4 rows of other prompts or incomplete left out"])
    cut = tmp_path / sheets.SAMPLES / "step-001000-01.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    sheets.progress_sheet(tmp_path, SHOTS)  # a picture that broke since is shown as such


def test_a_resumed_run_forgets_the_rows_after_its_step(tmp_path: Path) -> None:
    grown(tmp_path, 4)
    assert sheets.cut_rows(tmp_path, 500) == 4
    assert list(sheets.chosen(tmp_path, SHOTS)[0]) == [0, 500]
    assert sheets.cut_rows(tmp_path / "none", 0) == 0


# Trackers


@pytest.fixture(autouse=True)
def no_state() -> Iterator[None]:
    yield
    from accelerate import PartialState

    PartialState._reset_state()


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: object() if name in names else None)


def test_auto_is_tensorboard_where_it_is_installed_and_nothing_that_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorboard", "wandb", "trackio", "mlflow")
    assert trackers.chosen(["auto"]) == trackers.chosen(["auto", "tensorboard"]) == ("tensorboard",)
    assert trackers.chosen(["wandb", "auto"]) == ("wandb", "tensorboard")
    assert trackers.chosen(["none"]) == trackers.chosen([]) == ()
    installed(monkeypatch, "wandb")
    assert trackers.chosen(["auto"]) == ()


@pytest.mark.parametrize("name", trackers.STARTS)
def test_asked_for_and_not_installed_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        trackers.chosen(["auto", name])
    assert caught.value.line() == (
        f"error[E-CLI-02] training: report_to: {name} is asked for and not installed. "
        f"Fix: pip install 'hf-diffusion-kit[{name}]', or leave it out."
    )


def test_every_tracker_has_its_extra() -> None:
    import tomllib

    told = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    extras = told["project"]["optional-dependencies"]
    assert all(extras[name][0].startswith(name) for name in trackers.STARTS)
    assert trackers.SHOWS.keys() == trackers.STARTS.keys()


def test_an_unknown_tracker_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        trackers.chosen(["tensorbord"])
    with pytest.raises(ConfigError, match="none does not go with others"):
        trackers.chosen(["none", "wandb"])


SETTINGS = {"base": {"id": "digits", "revision": None}, "training": {"steps": 10, "resolution": [16, 24], "random_flip": False}}


def test_settings_are_told_flat_and_what_is_not_set_is_left_out() -> None:
    assert trackers.flat(SETTINGS) == {
        "base.id": "digits",
        "training.steps": 10,
        "training.resolution": "[16, 24]",
        "training.random_flip": False,
    }


def tracked(folder: Path, names: tuple[str, ...], begin: int, end: int, heard: list[str], *, seen: int = 0) -> list[str]:
    """A session that tells 100 times its beginning beside the step, so that two tellings of one step differ."""
    picture = folder / "picture.png"
    Image.new("RGB", (24, 16), "red").save(picture)
    told = trackers.Trackers(names, folder, SETTINGS, started="now", step=begin, seen=seen, say=heard.append)
    if not begin:
        told.pictures([picture], ["a cat"], 0)
    for step in range(begin + 1, end + 1):
        told.scalars({"loss": float(step + 100 * begin), "lr/unet": 1e-4, "validation": NAN if step == 2 else None}, step)
        if step % 3 == 0:
            told.pictures([picture], ["a cat"], step)
    told.close()
    return told.notes


def test_tensorboard_holds_each_step_once_after_a_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    heard: list[str] = []
    assert tracked(tmp_path, ("tensorboard",), 0, 5, heard) == []
    assert tracked(tmp_path, ("tensorboard",), 3, 7, heard) == []
    assert not heard and capsys.readouterr().out == ""
    events = accumulator.EventAccumulator(str(tmp_path / "logs"), size_guidance={"images": 0, "scalars": 0}).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1), (2, 2), (3, 3), (4, 304), (5, 305), (6, 306), (7, 307)]
    assert {e.value for e in events.Scalars("lr/unet")} == {np.float32(1e-4)}
    assert "validation" not in events.Tags()["scalars"]  # it was never finite
    shown = events.Images("samples/00")
    assert [(e.step, e.width, e.height) for e in shown] == [(0, 24, 16), (3, 24, 16), (6, 24, 16)]
    hyper = [path.read_text() for path in (tmp_path / "logs").rglob("hparams.yml")]
    assert len(hyper) == 1 and "training.steps: 10" in hyper[0]
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in (tmp_path / "logs").rglob("*") if path.is_file())


def test_a_tracker_that_cannot_start_is_a_note(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "logs").write_text("a file in its place")
    heard: list[str] = []
    assert tracked(tmp_path, ("tensorboard",), 0, 4, heard) == ["tensorboard failed while the run ran and was told nothing more"]
    assert len(heard) == 1 and "told nothing more: " in heard[0] and "log.jsonl" in heard[0]


class Spoken:
    """A tracker of nobody's, which prints and breaks on request."""

    def __init__(self, breaks: Exception | None = None):
        self.breaks, self.told, self.ended = breaks, [], False

    def start(self) -> None:
        print("hello from a tracker")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(values)

    def log(self, values: dict[str, float], step: int) -> None:
        if self.breaks and step == 3:
            raise self.breaks
        self.told.append((step, values["loss"]))

    def finish(self) -> None:
        self.ended = True


def spoken(monkeypatch: pytest.MonkeyPatch, **known: Spoken) -> None:
    for name, tracker in known.items():
        monkeypatch.setitem(trackers.STARTS, name, lambda *_, tracker=tracker: tracker)
        monkeypatch.setitem(trackers.SHOWS, name, lambda *_: None)


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("no route to https://me:s3cret@host/x"),
        ValueError("bad"),
        OSError(28, "full"),
        TypeError("changed"),
        KeyError("k"),
    ],
)
def test_a_tracker_that_breaks_stops_neither_run_nor_others(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, sound, heard = Spoken(fault), Spoken(), list[str]()
    spoken(monkeypatch, wandb=broken, trackio=sound)
    notes = tracked(tmp_path, ("wandb", "trackio"), 0, 5, heard)
    assert [entry[0] for entry in sound.told[1:]] == [1, 2, 3, 4, 5] and sound.ended
    assert [entry[0] for entry in broken.told[1:]] == [1, 2] and not broken.ended
    assert notes == ["wandb failed while the run ran and was told nothing more"] and len(heard) == 1
    assert "s3cret" not in heard[0]
    told = capsys.readouterr()
    assert told.out == "" and "hello from a tracker" in told.err  # stdout may be JSON


def test_the_errors_of_a_trackers_own_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Error(Exception):
        pass

    monkeypatch.setitem(sys.modules, "wandb.errors", type(sys)("wandb.errors"))
    monkeypatch.setattr(sys.modules["wandb.errors"], "Error", Error, raising=False)
    spoken(monkeypatch, wandb=Spoken(Error("not logged in")), mlflow=Spoken())
    assert len(tracked(tmp_path, ("wandb", "mlflow"), 0, 5, [])) == 1
    spoken(monkeypatch, wandb=Spoken(KeyboardInterrupt()))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        tracked(tmp_path, ("wandb",), 0, 5, [])


def test_what_an_earlier_session_told_is_not_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Spoken(), Spoken()
    spoken(monkeypatch, mlflow=first)
    tracked(tmp_path, ("mlflow",), 0, 5, [])
    spoken(monkeypatch, mlflow=second)
    tracked(tmp_path, ("mlflow",), 3, 8, [], seen=5)
    assert first.told[0] == trackers.flat(SETTINGS)
    assert [entry[0] for entry in (*first.told[1:], *second.told)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    assert tracked(tmp_path, (), 0, 5, []) == []
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
