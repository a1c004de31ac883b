"""Small captioned pictures, made here: a folder as a user has it."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "black", "white", "yellow")
WORDS = ("a", "b", "c", "th")


def folder(path: Path, count: int = 5, size: tuple[int, int] = (32, 20), captions: int = 2) -> Path:
    """`count` oblong pictures (width, height) with `captions` captions each, in metadata.jsonl."""
    path.mkdir(parents=True)
    lines = []
    for i in range(count):
        picture = Image.new("RGB", size, COLOURS[i % len(COLOURS)])
        ImageDraw.Draw(picture).ellipse((2 + i, 3, 12 + i, 15), fill=COLOURS[(i + 2) % len(COLOURS)])
        picture.save(path / f"p{i}.png")
        lines += [
            json.dumps({"file_name": f"p{i}.png", "text": f"{WORDS[k % 4]} {COLOURS[i % len(COLOURS)]}"}) for k in range(captions)
        ]
    (path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return path
