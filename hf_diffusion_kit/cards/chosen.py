"""What a run was set to do beyond the plain case, as rows of a table: only what is on, so that every row says something."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..records import RunRecord
from .made import adapter, adapter_name, new_words
from .page import percent
from .snippet import resolution

OPTIMIZERS = {
    "adamw": "AdamW",
    "adamw8bit": "AdamW with moments in 8 bits",
    "adafactor": "Adafactor",
    "prodigy": "Prodigy, which finds its own rate",
    "schedulefree": "schedule-free AdamW",
}
MEASURES = {"huber": "Huber", "smooth_l1": "smooth L1"}
MASKS = {"alpha": "only where the pictures are opaque", "files": "only where the masks are white"}
CAPTIONS = {
    "first": "the first of each picture",
    "longest": "the longest of each picture",
    "shortest": "the shortest of each picture",
}
Row = tuple[str, str]


def chosen(record: RunRecord) -> list[Row]:
    """(what, how it was set), in the order in which a picture meets it."""
    method, training = (dict(record.settings.get(name, {})) for name in ("method", "training"))
    rows = [
        *method_rows(record, method),
        *picture_rows(record, training),
        *caption_rows(training),
        *step_rows(record, training),
        *optimizer_rows(training, tokens=bool(new_words(record))),
        *stage_rows(training),
        *loss_rows(training),
        *held_out_rows(record, training),
    ]
    return [(name, ", ".join(filter(None, parts))) for name, parts in rows if any(parts)]


Parts = Iterator[tuple[str, list[str]]]


def method_rows(record: RunRecord, method: Mapping[str, Any]) -> Parts:
    if kind := adapter(record):
        targets, rank = method.get("targets"), method.get("rank")
        yield (
            "adapter",
            [
                adapter_name(record),
                f"blocks of {rank}" if kind == "oft" else f"rank {rank}" if rank else "",
                f"alpha {method['alpha']:g}" if method.get("alpha") else "",
                "scaled by the root of the rank (rsLoRA)" if method.get("rslora") else "",
                f"dropout {method['dropout']:g}" if method.get("dropout") else "",
                f"layers {', '.join(targets)}" if targets else f"layers: {method['preset']}" if method.get("preset") else "",
                "the text side too" if method.get("text_encoder") else "",
            ],
        )
    if record.method.startswith("dreambooth"):
        weight, prompts = method.get("prior_weight", 1.0), "; ".join(method.get("class_prompts") or ())
        if not weight:
            yield "prior preservation", ["none"]
        elif method.get("prior") == "base":
            yield "prior preservation", [f"weight {weight:g}", f"by the base's own answers under: {prompts}"]
        else:
            yield "prior preservation", [f"weight {weight:g}", "by class pictures"]


def picture_rows(record: RunRecord, training: Mapping[str, Any]) -> Parts:
    size, buckets = resolution(record), training.get("buckets")
    step = training.get("bucket_step", 64)
    yield (
        "size of the pictures",
        [
            f"{size[0]} × {size[1]} (height × width)" if size else "the base's own" if training else "",
            f"in buckets of about that area, sides in steps of {step}" if buckets else "",
        ],
    )
    crops = {"random": f"one of {training.get('random_crops', 4)} windows, anew in each epoch", "smart": "the part that matters"}
    yield "crop", [crops.get(training.get("crop", ""), "")]
    yield "mirrored", ["in half of the epochs" if training.get("random_flip") else ""]
    rest = training.get("unmasked_weight")
    mask = MASKS.get(training.get("mask", ""), "")
    yield "learnt of each picture", [mask, f"the rest with weight {rest:g}" if mask and rest else ""]


def caption_rows(training: Mapping[str, Any]) -> Parts:
    kept = training.get("caption_keep")
    yield (
        "captions",
        [
            CAPTIONS.get(training.get("caption", ""), ""),
            f"{percent(training['caption_dropout'])} left empty" if training.get("caption_dropout") else "",
            "tags shuffled" if training.get("caption_shuffle") else "",
            f"the first {kept} in their place" if training.get("caption_shuffle") and kept else "",
            f"given as: {training['caption_template']}" if training.get("caption_template") else "",
        ],
    )


def step_rows(record: RunRecord, training: Mapping[str, Any]) -> Parts:
    size, batches = training.get("batch_size"), training.get("gradient_accumulation_steps", 1)
    if size and record.steps:
        processes = round(record.samples / (record.steps * size * batches))
        of = [f"{size} at once" if batches > 1 or processes > 1 else ""]
        of += [f"{batches} batches" if batches > 1 else "", f"{processes} processes" if processes > 1 else ""]
        times = " × ".join(filter(None, of))
        yield "pictures a step", [f"{size * batches * processes:,}{f' ({times})' if times else ''}"]
    precision = {"bf16": "bfloat16", "fp16": "float16"}.get(training.get("mixed_precision", "no"), "")
    held = training.get("quantize", "no")
    yield "arithmetic", [precision, f"the base held in {held}" if held != "no" else ""]
    yield "seed", [str(training["seed"]) if "seed" in training else ""]


def optimizer_rows(training: Mapping[str, Any], *, tokens: bool) -> Parts:
    name, warmup = training.get("optimizer", "adamw"), training.get("lr_warmup_steps")
    curve = training.get("lr_scheduler", "constant")
    text, own = training.get("text_encoder_learning_rate"), training.get("token_learning_rate")
    if "learning_rate" in training:
        yield (
            "optimizer",
            [
                OPTIMIZERS.get(name, name),
                f"learning rate {training['learning_rate']:g}",
                f"{text:g} on the text side" if text else "",
                f"{own:g} on the new words" if own and tokens else "",
                curve.replace("_", " ") if curve != "constant" else "",
                f"{warmup:,} steps of warm-up" if warmup else "",
            ],
        )
    decay = training.get("ema_decay")
    yield "averaged weights", [f"decay {decay:g}" if decay else "", "the files hold the average" if decay else ""]


def stage_rows(training: Mapping[str, Any]) -> Parts:
    first, stop = training.get("text_encoder_steps"), training.get("text_encoder_stop_step")
    joint = training.get("first_stage") == "joint"
    if first:
        along = "the denoiser learnt along and was set back" if joint else "the denoiser waited"
        yield "stages", [f"the text side for {first:,} steps ({along})", "then the denoiser alone"]
    if stop:
        yield "stages", [f"the text side up to step {stop:,}", "the denoiser to the end"]


def loss_rows(training: Mapping[str, Any]) -> Parts:
    kind, gamma = training.get("loss_type", "l2"), training.get("snr_gamma")
    yield (
        "loss",
        [
            f"{MEASURES.get(kind, kind)} (c {training.get('huber_c', 0.1):g})" if kind != "l2" else "",
            f"min-SNR weights (gamma {gamma:g})" if gamma else "",
            "weights of debiased estimation" if training.get("debiased") else "",
        ],
    )
    offset, more = training.get("noise_offset"), training.get("input_perturbation")
    yield (
        "noise",
        [
            "down to pure noise (zero terminal SNR)" if training.get("zero_terminal_snr") else "",
            f"offset {offset:g}" if offset else "",
            f"input perturbation {more:g}" if more else "",
        ],
    )


def held_out_rows(record: RunRecord, training: Mapping[str, Any]) -> Parts:
    """The loss of pictures that were never trained on, and which weights the files hold where a run looked for the best."""
    if not record.validations:
        return
    (begin, before), (end, after) = record.validations[0], record.validations[-1]
    best, lowest = min(record.validations, key=lambda pair: (pair[1], pair[0]))
    out = training.get("early_stop")
    yield (
        "held-out loss",
        [
            f"{before:.4g} at step {begin:,}",
            f"{after:.4g} at step {end:,}" if end != begin else "",
            f"lowest {lowest:.4g} at step {best:,}" if best not in (begin, end) else "",
            f"the files hold the weights of step {best:,}" if out else "",
        ],
    )
