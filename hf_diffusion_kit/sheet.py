"""Pictures with captions on one white page, worth looking at: before and after, a contact sheet, class pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN = 12, 20
"""Pixels between cells and around the page."""
ABOVE, BELOW = 6, 26
"""Pixels above a caption and below the longest of a row: it belongs to the picture over it, not to the one under it."""
CAPTION_LINES = 4
"""A longer caption ends in an ellipsis on the page; the data keep all of it."""
INK, GREY, FRAME = "#1c1c1e", "#6b6b70", "#d8d8dc"
FACES = (
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
    Path("/System/Library/Fonts/Helvetica.ttc"),
    Path("C:/Windows/Fonts/segoeui.ttf"),
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),
    Path("/System/Library/Fonts/Supplemental/Arial Unicode.ttf"),
    Path("C:/Windows/Fonts/msyh.ttc"),
)
"""Fonts with more letters than the one in Pillow, which is the fallback; a file that is not there is not used. The first is taken that
has all letters of a caption, else the first that is there."""
NO_LETTER = "\U0010fffe"
"""A font shows it as it shows every letter that it lacks."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet."""

    picture: Image.Image
    caption: str = ""
    """Shown under the picture, wrapped to its width."""
    lines: int = CAPTION_LINES
    """Most lines of the caption."""


def sheet(
    rows: Sequence[Sequence[Cell]],
    *,
    title: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: int = 160,
) -> Image.Image:
    """A labelled grid, one list of cells a row. `cell`: side in pixels of the square into which each picture is fitted whole; it stands
    on its caption, flush left with it."""
    size = max(11, min(14, cell // 13))
    title_font, label_font = _font(22, title), _font(15, " ".join([*row_labels, *column_labels]))
    fonts = [[_font(size, item.caption) for item in row] for row in rows]
    columns = max([len(row) for row in rows] + [len(column_labels), 1])
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    captions = [
        [_wrap(ruler, item.caption, font, cell, lines=item.lines) for item, font in zip(row, chosen, strict=True)]
        for row, chosen in zip(rows, fonts, strict=True)
    ]
    pictures = [[_fit(item.picture, cell) for item in row] for row in rows]
    line = max((_line_height(font) for row in fonts for font in row), default=0)
    label_line = _line_height(label_font)
    labels = [_wrap(ruler, text, label_font, 130, lines=6) for text in row_labels]
    label_width = max((ruler.textlength(part, label_font) for label in labels for part in label), default=0)
    left = MARGIN + (int(label_width) + GAP if labels else 0)
    width = left + columns * cell + (columns - 1) * GAP + MARGIN
    titles = _wrap(ruler, title, title_font, width - 2 * MARGIN, lines=3)
    head = [_wrap(ruler, text, label_font, cell, lines=2) for text in column_labels]
    head_height = max((len(part) for part in head), default=0) * label_line
    top = MARGIN + len(titles) * _line_height(title_font) + (GAP if titles else 0) + head_height + (6 if head_height else 0)
    tall = [max((picture.height for picture in row), default=0) for row in pictures]
    heights = [
        high + (ABOVE + line * max(map(len, texts)) if any(texts) else 0) for high, texts in zip(tall, captions, strict=True)
    ]
    gaps = [BELOW if any(texts) else GAP for texts in captions]
    page = Image.new("RGB", (width, top + sum(heights) + sum(gaps[:-1]) + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    for n, part in enumerate(titles):
        draw.text((MARGIN, MARGIN + n * _line_height(title_font)), part, INK, title_font)
    for column, label in enumerate(head):
        for n, part in enumerate(label):
            y = top - 6 - (len(label) - n) * label_line
            draw.text((left + column * (cell + GAP), y), part, GREY, label_font)
    y = top
    for number, (row, texts, high, height) in enumerate(zip(pictures, captions, tall, heights, strict=True)):
        if number < len(labels):
            first = y + (high - len(labels[number]) * label_line) // 2
            for n, part in enumerate(labels[number]):
                draw.text((left - GAP, first + n * label_line), part, GREY, label_font, anchor="ra")
        for column, (picture, text) in enumerate(zip(row, texts, strict=True)):
            x = left + column * (cell + GAP)
            corner = (x, y + high - picture.height)
            page.paste(picture, corner)
            box = (corner[0] - 1, corner[1] - 1, corner[0] + picture.width, corner[1] + picture.height)
            draw.rectangle(box, outline=FRAME)
            for n, part in enumerate(text):
                draw.text((x, y + high + ABOVE + n * line), part, INK, fonts[number][column])
        y += height + gaps[number]
    return page


def grid(cells: Sequence[Cell], *, columns: int | None = None, title: str = "", cell: int = 160) -> Image.Image:
    """The cells in reading order; `columns`: None for a page about one and a half times as wide as high."""
    if columns is None:
        about = max(1, min(len(cells), 8, round((1.9 * len(cells)) ** 0.5)))
        columns = min((about, about + 1, max(1, about - 1)), key=lambda n: -len(cells) % n)  # the fullest last row
    return sheet([cells[i : i + columns] for i in range(0, len(cells), columns)], title=title, cell=cell)


def _fit(picture: Image.Image, cell: int) -> Image.Image:
    """The whole picture in the square. A tiny one is enlarged by whole pixels, for it is those that one wants to see."""
    scale = cell / max(picture.size)
    tiny = max(picture.size) <= 64 and scale >= 1
    scale = int(scale) if tiny else scale
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def _font(size: int, text: str = "") -> Font:
    """One that has the letters of the text, as far as there is any."""
    there = [face for face in FACES if face.is_file()]
    for face in there if len(there) > 1 else ():
        font = ImageFont.truetype(str(face), size)
        if _has_all(font, text):
            return font
    return ImageFont.truetype(str(there[0]), size) if there else ImageFont.load_default(size)


def _has_all(font: ImageFont.FreeTypeFont, text: str) -> bool:
    nothing = bytes(font.getmask(NO_LETTER))
    return all(bytes(font.getmask(letter)) != nothing for letter in {*text[:2000]} if not letter.isspace())


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Åg")
    return round((bottom - top) * 1.2)


def _wrap(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: Font,
    width: float,
    *,
    lines: int = CAPTION_LINES,
) -> list[str]:
    """Lines of at most `width` pixels: broken between words, inside a word only where it is wider than the line."""
    done: list[str] = []
    here = ""
    for word in text[:2000].split():
        while word:
            longer = f"{here} {word}" if here else word
            if draw.textlength(longer, font) <= width:
                here, word = longer, ""
            elif here:
                done.append(here)
                here = ""
            else:
                cut = next((n for n in range(len(word), 1, -1) if draw.textlength(word[:n], font) <= width), 1)
                done.append(word[:cut])
                word = word[cut:]
            if len(done) >= lines:
                last = done[lines - 1]
                while last and draw.textlength(f"{last}…", font) > width:
                    last = last[:-1]
                return [*done[: lines - 1], f"{last.rstrip(' ,.;')}…"] if (here or word) else done[:lines]
    return [*done, here] if here else done
