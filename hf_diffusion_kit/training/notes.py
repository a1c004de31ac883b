"""What happened in a run that nobody might have asked for: a sentence each."""

from typing import TYPE_CHECKING

from ..data.captions import tidy
from . import optimizers
from . import stages as staging

if TYPE_CHECKING:
    from .trainer import Trainer

MUCH = 1e9
"""Bytes of cache on disk that a run speaks of."""


def notes(run: "Trainer") -> list[str]:
    """What was cropped, enlarged, cut, dropped, not reached or skipped."""
    loaders = [loader for loader in (run.loader, run.prior) if loader]
    told = [note for loader in loaders for note in loader.notes()]
    uses = run.ledger()
    if cut := [use for use in uses if use.tokens_cut]:
        longest = max(use.tokens_cut for use in cut)
        told.append(f"{len(cut)} of {len(uses)} captions were cut by the tokenizer, by up to {longest} tokens")
    shown = {image_id for image_id, _ in run.loader.used}
    if unseen := len(run.loader.rows) - len(shown):
        told.append(f"{unseen} of {len(run.loader.rows)} pictures were not reached in {run.done} steps")
    for loader in loaders:
        if dropped := sum(times for (_, text), times in loader.used.items() if not text):
            told.append(f"{dropped} times a picture ({loader.role}) was shown without its caption (caption_dropout)")
    known = {(row["image_id"], tidy(text)) for row in run.loader.rows for text in row["captions"]}
    used = known & run.loader.chosen.keys() if run.settings.caption != "all" else known
    if unused := len(known - used):
        told.append(f"{unused} of {len(known)} captions were never given to the model (caption = {run.settings.caption})")
    if (taken := sum(loader.cache.disk_bytes for loader in {*loaders, run.held or run.loader})) > MUCH:
        told.append(
            f"what VAE and text encoders said takes {taken / 1e9:.1f} GB on disk; hfdk cache lists it and makes it smaller"
        )
    if run.settings.fsdp and run.processes.world == 1:
        told.append("fsdp did nothing: one process has nobody to share the denoiser with")
    if run.skipped:
        told.append(f"{run.skipped} steps had no finite loss or gradient and changed nothing")
    if run.ended_early:
        told.append(
            f"ended after {run.done} of {run.settings.steps} steps: {run.settings.early_stop} measurements without a better one"
        )
    if run.given_out is not None:
        told.append(f"given out are the weights of step {run.given_out}, the best by the held-out pictures")
    if run.held is not None:
        told.append(f"{len(run.held.rows)} pictures were held out and never trained on")
    if run.validations:
        step, loss = min(run.validations, key=lambda pair: pair[1])
        told.append(f"the held-out pictures' loss was lowest at step {step}: {loss:.5f}")
    kinds = {kind: [part.label for part in run.trained if part.kind == kind] for kind in ("text", "tokens")}
    told += staging.notes(run.settings, [part.label for part in run.trained], kinds["text"], kinds["tokens"])
    return [*told, *optimizers.notes(run.settings)]
