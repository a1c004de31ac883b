"""What the caption ledger tells: which texts the model was given, and which it never saw."""

from collections import Counter
from typing import Any

from ..records import CaptionUse, RunRecord


def most_used(record: RunRecord) -> list[CaptionUse]:
    """The captions of the subject, the most used first; a text that several pictures share is one line."""
    times: Counter[str] = Counter()
    first: dict[str, CaptionUse] = {}
    for use in record.captions:
        if use.role == "instance" and use.text and use.times:
            times[use.text] += use.times
            first.setdefault(use.text, use)
    ranked = sorted(first.values(), key=lambda use: -times[use.text])
    return [CaptionUse("", "", use.text, times[use.text], use.tokens, use.tokens_cut) for use in ranked]


def caption_facts(record: RunRecord, role: str) -> dict[str, Any] | None:
    """Counts over the caption ledger; None when nothing of this role was shown."""
    lines = [use for use in record.captions if use.role == role]
    seen = [use for use in lines if use.text and use.times]
    if not lines:
        return None
    known = record.data.captions if role == "instance" and record.data.captions is not None else sum(bool(u.text) for u in lines)
    return {
        "pictures": len({use.image_id for use in lines if use.times}),
        "seen": len(seen),
        "times": sum(use.times for use in seen),
        "cut": sum(bool(use.tokens_cut) for use in seen),
        "tokens_cut": sum(use.tokens_cut for use in seen),
        # Of a caption whose tags are shuffled there are many texts; the run's own notes count what was left over.
        "unused": None if record.settings.get("training", {}).get("caption_shuffle") else max(0, known - len(seen)),
        "emptied": sum(use.times for use in lines if not use.text),
    }
