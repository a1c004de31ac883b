"""What a reader must know before relying on the result, as far as this very run's record tells it."""

import re

from ..records import Pinned, RunRecord
from .made import is_whole, method_settings, this
from .page import counted

EMBEDDED = ("digits", "digits-seven")
"""Bases that come with the package (a test holds it against the room that has them)."""
FEW = 100
"""Pictures below which a model may well repeat them."""


def is_embedded(base: Pinned) -> bool:
    return base.id in EMBEDDED and not base.on_hub


def limits(record: RunRecord) -> list[str]:
    """One sentence or two each; only what applies."""
    found = []
    data, base = record.data, record.base_model
    embedded, whole = is_embedded(base), is_whole(record)
    if embedded:
        found.append("The base draws handwritten digits at 32×32 pixels and nothing else; it is there to learn and to test with.")
    elif base.on_hub:
        with_it = "this model does too" if whole else f"it does with {this(record)} too"
        found.append(f"What {base.id} does badly or unfairly, {with_it}: its card says more.")
    if whole and record.family == "sd1" and not embedded:
        found.append("The files hold no safety checker: nothing looks at what is drawn.")
    rows = data.rows - data.held_out
    if 0 < rows < FEW:
        each = record.samples / rows
        often = f"{each:,.0f} times on average" if each >= 1 else "less than once"
        found.append(
            f"It was trained on {counted(rows, 'picture')}, each shown {often}. It may repeat them: "
            "compare what you draw with them before you publish it."
        )
    if data.source == "coco" and not embedded:
        found.append(
            "COCO's pictures show people who were never asked, and its captions say what strangers saw in them. "
            "Do not use this to depict or to judge a person."
        )
    found += license_limits(data.licenses)
    found += forgetting(record)
    if not record.scores:
        found.append("No score was measured; how good it is, only the pictures tell.")
    return found


def forgetting(record: RunRecord) -> list[str]:
    """What may have changed beside what was meant to."""
    method = method_settings(record)
    if record.method.startswith("dreambooth"):
        held = method.get("prior") == "base" and method.get("prior_weight", 1.0)
        if held or any(use.role == "class" for use in record.captions):
            return []
        return ["It was trained without prior preservation: what else is called by the same words may have changed with it."]
    if is_whole(record):
        return [
            "Any of its weights may have changed: what the training pictures do not show may be drawn worse than by the base."
        ]
    return []


def license_limits(licenses: dict[str, int]) -> list[str]:
    total = sum(licenses.values())
    kinds = (
        (r"non-?commercial|\bnc\b", "the licence forbids commercial use"),
        (r"no-?deriv|\bnd\b", "the licence forbids changed copies"),
        (r"^(?:unknown|none|)$", "no licence is known"),
    )
    found = []
    for pattern, meaning in kinds:
        if count := sum(n for name, n in licenses.items() if re.search(pattern, name.strip(), re.IGNORECASE)):
            found.append(f"Of {count:,} of the {total:,} pictures {meaning}.")
    return found
