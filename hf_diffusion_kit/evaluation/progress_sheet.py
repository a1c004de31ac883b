"""What a run has learnt by when: one growing picture, a row a checkpoint, a column a prompt, the same seeds in every row.

The rows' own pictures lie beside it, images/samples/step-000500-00.png, each with its prompt and seed inside; the sheet is made of them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..sheet import FRAME, GAP, Cell, sheet
from .gallery import Shot

SHEET, SAMPLES = Path("images/progress.png"), Path("images/samples")
"""Within the run's folder."""
MOST_ROWS, MOST_COLUMNS = 20, 32
LONGEST_SIDE = 3900
"""Pixels of all cells together; words and margins come on top, so that the sheet stays below 4096."""
LARGEST_CELL = 256
NAME = re.compile(r"step-(\d{6,})-(\d{2,})\.png")


def add_row(folder: Path, step: int, shots: Sequence[Shot], pictures: Sequence[Image.Image], *, title: str = "") -> list[Path]:
    """Keeps what was drawn after `step` (0: by the base) in the run's folder and makes the sheet anew; returns the row's files."""
    place = folder / SAMPLES
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, (shot, picture) in enumerate(zip(shots, pictures, strict=True)):
        told = PngInfo()
        told.add_itxt("prompt", shot.caption)
        told.add_text("seed", str(shot.seed))
        paths.append(whole(picture, place / f"step-{step:06d}-{index:02d}.png", told))
    whole(progress_sheet(folder, shots, title=title), folder / SHEET, None)
    return paths


def cut_rows(folder: Path, step: int) -> int:
    """Removes the rows after `step`, from which a run goes on; returns how many files went."""
    late = [path for row in rows_in(folder).items() for path in row[1] if row[0] > step]
    for path in late:
        path.unlink()
    return len(late)


def progress_sheet(folder: Path, shots: Sequence[Shot], *, title: str = "") -> Image.Image:
    """Of the rows that lie in the run's folder: the first is the base's; of many, evenly chosen ones, which the title says."""
    columns = shots[:MOST_COLUMNS]
    rows, notes = chosen(folder, shots)
    if len(columns) < len(shots):
        notes.append(f"{len(columns)} of {len(shots)} prompts")
    cell = min(LARGEST_CELL, LONGEST_SIDE // max(1, len(rows)) - GAP, LONGEST_SIDE // max(1, len(columns)) - GAP)
    return sheet(
        [[shown(path) for path in paths[: len(columns)]] for paths in rows.values()],
        title=" · ".join([title, *notes] if title else notes),
        row_labels=[f"step {step:,}" if step else "base" for step in rows],
        column_labels=[shot.caption or "(no caption)" for shot in columns],
        cell=cell,
    )


def chosen(folder: Path, shots: Sequence[Shot]) -> tuple[dict[int, list[Path]], list[str]]:
    """The rows to show, step -> pictures, and what is not shown, in words."""
    found = rows_in(folder)
    wanted = [(shot.caption, str(shot.seed)) for shot in shots]
    rows = {step: paths for step, paths in found.items() if drawn_from(paths) == wanted}
    steps, notes = thinned(list(rows), MOST_ROWS), []
    if len(steps) < len(rows):
        notes.append(f"{len(steps)} of {len(rows)} rows, evenly chosen")
    if other := len(found) - len(rows):
        notes.append(f"{other} {'row' if other == 1 else 'rows'} of other prompts or incomplete left out")
    return {step: rows[step] for step in steps}, notes


def rows_in(folder: Path) -> dict[int, list[Path]]:
    """Step -> its pictures, both in order."""
    found: dict[int, dict[int, Path]] = {}
    for path in (folder / SAMPLES).glob("step-*.png"):
        if match := NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    return {step: [row[index] for index in sorted(row)] for step, row in sorted(found.items())}


def drawn_from(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Prompt and seed of each picture, as they stand in the file."""
    told = []
    for path in paths:
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                told.append((str(picture.info.get("prompt", "")), str(picture.info.get("seed", ""))))
        except OSError:  # not a picture of ours
            told.append(("", ""))
    return told


def shown(path: Path) -> Cell:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return Cell(picture.convert("RGB"))
    except OSError:  # broken since; the other pictures are worth seeing
        return Cell(Image.new("RGB", (64, 64), FRAME), f"{path.name} cannot be read")


def thinned(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of them, the first and the last among them, evenly spread."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def whole(picture: Image.Image, path: Path, told: PngInfo | None) -> Path:
    """Saved whole or not at all."""
    half = path.with_name(f".tmp-{path.name}")
    picture.save(half, format="PNG", pnginfo=told)
    return half.replace(path)
