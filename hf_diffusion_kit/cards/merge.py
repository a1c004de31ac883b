"""A new card over an old one: what the kit wrote is replaced, what the owner wrote stays."""

import re

from ..errors import HubError
from . import front_matter

END = "<!-- hfdk:end -->"


def begin(made_from: str) -> str:
    """The mark above the text that is replaced; `made_from` names the file of facts beside the card."""
    return f"<!-- hfdk:begin. Made from {made_from}; text above or below is yours and stays, text in here is replaced -->"


def merge_card(old: str, new: str) -> str:
    """`old` with everything that `new` says. Text outside the two marks stays; an `old` without them goes below whole.

    Metadata: the new values win, keys that only the old card has stay, `tags` are united, `configs` of other names stay. Raises
    HubError when the old metadata cannot be read.
    """
    try:
        before = front_matter.read(old)
    except ValueError as error:
        fix = "correct it on the Hub, or delete it, then run again"
        raise HubError(f"of the card that is there, {error}", where="README.md", fix=fix, case=2) from error
    told = front_matter.read(new)
    stale = ("license_name", "license_link") if told.get("license", "other") != "other" else ()
    metadata = {**told, **{key: value for key, value in before.items() if key not in told and key not in stale}}
    if isinstance(told.get("tags"), list) and isinstance(before.get("tags"), list):
        metadata["tags"] = list(dict.fromkeys([*told["tags"], *before["tags"]]))
    if isinstance(told.get("configs"), list) and isinstance(before.get("configs"), list):
        ours = {entry["config_name"] for entry in told["configs"]}
        others = [
            entry for entry in before["configs"] if isinstance(entry, dict) and entry.get("config_name", "default") not in ours
        ]
        metadata["configs"] = [*told["configs"], *others]
    above, _, below = parts(front_matter.split(old)[1])
    _, marked, whole = parts(front_matter.split(new)[1])
    texts = [text.strip("\n") for text in (above, marked or whole, below)]
    return front_matter.written(metadata) + "\n" + "\n\n".join(text for text in texts if text.strip()) + "\n"


def parts(body: str) -> tuple[str, str, str]:
    """(above, between with its marks, below). Marks that are missing or out of order mark nothing: all of it is `below`."""
    begins = [match.start() for match in re.finditer(r"^<!-- hfdk:begin\b", body, re.MULTILINE)]
    ends = [match.end() for match in re.finditer(r"^<!-- hfdk:end -->", body, re.MULTILINE)]
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        return "", "", body
    return body[: begins[0]], body[begins[0] : ends[0]], body[ends[0] :]
