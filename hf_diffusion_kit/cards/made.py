"""What a run made, in the words by which its card and the Hub know it: an adapter, new words, both at once, or a whole model."""

from collections.abc import Sequence
from typing import Any

from ..records import RunRecord
from .markdown import Markdown, code, inline
from .page import counted

ADAPTERS = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT"}
"""Setting `adapter` -> its name."""
FORMATS = {
    "full": ("pipeline",),
    "dreambooth-full": ("pipeline",),
    "textual-inversion": ("textual-inversion",),
    "pivotal": ("diffusers-lora", "textual-inversion"),
}
"""Method -> what it writes, for a record without files; any other method writes a LoRA."""
TAGS = {
    "lora": (),
    "dreambooth": ("dreambooth",),
    "full": ("full-finetuning",),
    "dreambooth-full": ("dreambooth", "full-finetuning"),
    "textual-inversion": (),
    "pivotal": ("pivotal-tuning",),
}
"""Method -> tags of its own; another method's tag is its name."""
FORMAT_TAGS = {"diffusers-lora": ("lora", "template:sd-lora"), "peft": ("peft",), "textual-inversion": ("textual_inversion",)}
"""Format -> tags by which the Hub chooses its own snippet: `lora` is for what `load_lora_weights` reads, and nothing else."""
FAMILY_TAGS = {
    "sd1": "stable-diffusion",
    "sd2": "stable-diffusion",
    "sdxl": "stable-diffusion-xl",
    "flux": "flux",
    "flux-schnell": "flux",
    "flux2-klein": "flux2-klein",
    "z-image": "z-image",
}


def formats(record: RunRecord) -> tuple[str, ...]:
    """In the order in which a reader opens them."""
    named = dict.fromkeys([line.format for line in record.verified] or [file.format for file in record.weights])
    return tuple(named) or FORMATS.get(record.method, ("diffusers-lora",))


def is_whole(record: RunRecord) -> bool:
    """Whether the files are a pipeline by themselves; else they go onto their base."""
    return "pipeline" in formats(record)


def method_settings(record: RunRecord) -> dict[str, Any]:
    return dict(record.settings.get("method", {}))


def new_words(record: RunRecord) -> tuple[str, ...]:
    return tuple(method_settings(record).get("tokens") or ()) if "textual-inversion" in formats(record) else ()


def adapter(record: RunRecord) -> str | None:
    """Which kind of adapter was written, as the setting names it; None where there is none."""
    written = {"diffusers-lora", "peft"} & set(formats(record))
    return str(method_settings(record).get("adapter", "lora")) if written else None


def tags(record: RunRecord, *, family: bool) -> list[str]:
    """For the search of the Hub, and for the snippet that it shows. `family`: whether its tag is told too."""
    kind = adapter(record)
    told = ["text-to-image", "diffusers"]
    told += [FAMILY_TAGS[record.family]] if family and record.family in FAMILY_TAGS else []
    told += [tag for form in formats(record) for tag in FORMAT_TAGS.get(form, ())]
    told += [kind] if kind and kind != "lora" else []
    told += ["dora"] if method_settings(record).get("dora") else []
    return list(dict.fromkeys([*told, *TAGS.get(record.method, (record.method,)), "hf-diffusion-kit"]))


def headline(record: RunRecord, base: Markdown) -> Markdown:
    """The sentence under the title. `base`: the model that was trained, and where it is."""
    shown = f"{counted(record.data.rows - record.data.held_out, 'captioned picture')} in {counted(record.steps, 'step')}"
    booth = "DreamBooth " if record.method.startswith("dreambooth") else ""
    words = new_words(record)
    if is_whole(record):
        what = f"A {booth or 'full '}fine-tune of {base}, trained on {shown}."
        return Markdown(f"{what} {whole_sentence(record)}")
    named = f"{'a new word' if len(words) == 1 else f'{len(words)} new words'}, {listed([code(word) for word in words])}"
    if words and adapter(record):
        both = f"{inline(adapter_noun(record))} and {named}"
        return Markdown(f"A {both}, for {base}, learnt together from {shown} (pivotal tuning). Load both.")
    if words:
        first = named[0].upper() + named[1:]
        return Markdown(f"{first}, for {base}, learnt from {shown} by textual inversion. The model itself stays as it is.")
    kind = inline(adapter_noun(record) if record.method in TAGS else record.method)
    return Markdown(f"A {booth}{kind} for {base}, trained on {shown}.")


def adapter_name(record: RunRecord) -> str:
    kind = adapter(record) or "lora"
    return "DoRA" if method_settings(record).get("dora") else ADAPTERS.get(kind, kind)


def adapter_noun(record: RunRecord) -> str:
    """A LoRA is one by itself; the others are adapters."""
    name = adapter_name(record)
    return name if name.endswith("oRA") else f"{name} adapter"


def whole_sentence(record: RunRecord) -> str:
    """Which weights were trained, as far as the record tells, and what the files are."""
    encoders = sum(part.startswith("text_encoder") for part in record.parameters)
    text = {0: "", 1: " and of its text encoder"}.get(encoders, " and of its text encoders")
    trained = f"All weights of its denoiser{text} were trained. " if record.parameters else ""
    return f"{trained}The files are a whole pipeline: nothing else has to be loaded."


def this(record: RunRecord) -> str:
    """How sentences further below call what was made."""
    if is_whole(record):
        return "this model"
    words = new_words(record)
    named = "the new word" if len(words) == 1 else "the new words"
    return f"this adapter and {named}" if words and adapter(record) else named if words else "this adapter"


def listed(names: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
