"""The page of captions: what it is given, what it may ask."""

import asyncio
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..data.captions import tidy
from ..data.pictures import open_rgb, read
from .captions import PARQUET, Shelf, Stale, State, told
from .site import Refused, Site, page
from .site import told as asked

SIDE = 640
"""Most pixels of a picture's longer side on the page."""


@dataclass
class CaptionsPage:
    shelf: Shelf
    count: Callable[[str], int] | None = None
    """Tokens of a caption; None: they are not counted."""
    most: int = 0
    """Tokens that the model reads."""
    saved: int = 0
    """Captions' pictures that were changed so far."""
    state: State | None = None

    def site(self) -> Site:
        return Site(
            {
                "GET /": self.page,
                "GET /picture": self.picture,
                "POST /count": self.counted,
                "POST /save": self.save,
            }
        )

    async def page(self, _: Request) -> Response:
        state = self.state = self.shelf.read()
        shown = [{"name": name, "source": state.sources[name], "captions": captions} for name, captions in state.captions.items()]
        data = {
            "folder": str(self.shelf.folder),
            "kind": state.kind or "no captions yet: they will be written to metadata.jsonl",
            "fixed": state.kind == PARQUET,
            "notes": state.notes,
            "digest": state.digest,
            "most": self.most,
            "pictures": shown,
        }
        return page("captions", f"{self.shelf.folder.name}: captions", data)

    async def picture(self, request: Request) -> Response:
        """By its name in the set alone: no path of a request reaches the disk."""
        state = self.state or self.shelf.read()
        path = state.pictures.get(request.query_params.get("name", ""))
        if path is None:
            raise Refused(404, "the folder holds no such picture")
        return Response(await asyncio.to_thread(small, path), media_type="image/jpeg")

    async def counted(self, request: Request) -> Response:
        texts = (await asked(request)).get("texts")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Refused(400, "texts: a list of captions")
        return JSONResponse({"counts": [self.tokens(text) for text in texts]})

    def tokens(self, text: str) -> dict[str, Any]:
        """How many, and the words that the model would not see."""
        if self.count is None:
            return {}
        text = tidy(text)
        number = self.count(text)
        return {"tokens": number, "cut": cut(text, self.count, self.most) if number > self.most else ""}

    async def save(self, request: Request) -> Response:
        body = await asked(request)
        edits, digest = body.get("edits"), body.get("digest")
        if not isinstance(edits, Mapping) or not isinstance(digest, str):
            raise Refused(400, "edits: picture -> its captions; digest: of what the page was made from")
        if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in edits.values()):
            raise Refused(400, "edits: a list of captions for each picture")
        try:
            names = self.shelf.save(edits, digest)
        except Stale as error:
            raise Refused(409, str(error)) from error
        self.saved += len(edits)
        state = self.state = self.shelf.read()
        now = {name: {"captions": state.captions[name], "source": state.sources[name]} for name in edits}
        return JSONResponse({"said": told(names), "digest": state.digest, "kind": state.kind, "pictures": now})


def small(path: Any) -> bytes:
    image = open_rgb(read(path))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def cut(text: str, count: Callable[[str], int], most: int) -> str:
    """The words behind the last that the model reads whole."""
    words = text.split()
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(" ".join(words[:middle])) <= most else (low, middle - 1)
    return " ".join(words[low:])
