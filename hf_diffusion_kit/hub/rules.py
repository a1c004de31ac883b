"""The Hub's rules for the metadata at the top of a README.md, as far as they can be known without it. Pure functions.

The local Hub refuses a card by them, and `preflight` and `push` ask them before a byte is sent.
"""

import re
from typing import Any

LICENSES = frozenset(  # a paragraph of names reads better than a list of 85 lines
    """afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
    cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1
    lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1
    open-mdw openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib""".split()  # noqa: SIM905
)
HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}")


def is_hub_id(value: object) -> bool:
    """`user/name` or a plain old name; a path, an address or an empty text is not."""
    text = value if isinstance(value, str) else ""
    return bool(HUB_ID.fullmatch(text)) and not re.search(r"--|\.\.|\.git$", text)


def card_faults(metadata: dict[str, Any]) -> list[str]:
    """One sentence per field that the Hub would refuse; empty when all is well."""
    faults = []
    for license_id in as_list(metadata.get("license")):
        if license_id not in LICENSES:
            faults.append(
                f"license: {license_id!r} is not a licence id of the Hub; else use `other` with license_name and license_link"
            )
    for field in ("base_model", "datasets", "new_version"):
        for value in as_list(metadata.get(field)):
            if not is_hub_id(value):
                shown = value if isinstance(value, str) and len(value) < 100 else type(value).__name__
                faults.append(
                    f"{field}: {shown!r} is not a Hub id such as user/name (a path on this machine cannot be named here)"
                )
    if metadata.get("base_model_relation", "adapter") not in ("adapter", "finetune", "merge", "quantized"):
        faults.append("base_model_relation: must be adapter, finetune, merge or quantized")
    for field in ("library_name", "pipeline_tag", "license_name", "license_link", "instance_prompt"):
        if field in metadata and not isinstance(metadata[field], str):
            faults.append(f"{field}: must be a text")
    if "tags" in metadata and not (isinstance(metadata["tags"], list) and all(isinstance(tag, str) for tag in metadata["tags"])):
        faults.append("tags: must be a list of texts")
    if "widget" in metadata and not (
        isinstance(metadata["widget"], list) and all(isinstance(w, dict) for w in metadata["widget"])
    ):
        faults.append("widget: must be a list of entries with `text`")
    if "model-index" in metadata and not isinstance(metadata["model-index"], list):
        faults.append("model-index: must be a list")
    return faults


def as_list(value: object) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
