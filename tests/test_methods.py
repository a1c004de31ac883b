"""Every method trains every family: what it names moves, everything else stays as it was, to the bit; and what is wrong is one line.

Shape suffixes: B batch, C latent channels, H W latent height and width.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fitting
import tiny
from fitting import fitted
from hf_diffusion_kit.errors import ConfigError, ModelError
from hf_diffusion_kit.families import FAMILIES, Family
from hf_diffusion_kit.methods import (
    METHODS,
    Batch,
    DreamBooth,
    DreamBoothFull,
    Full,
    Lora,
    Method,
    Pivotal,
    TextualInversion,
    Trained,
    denoising_loss,
)
from hf_diffusion_kit.methods.new_rows import NewRows

WORDS = ("<dog>", "<toy>")
METHOD: dict[str, Method] = {
    "lora": Lora(rank=2, text_encoder=True),
    "loha": Lora(adapter="loha", rank=2, preset="conv"),
    "lokr": Lora(adapter="lokr", rank=2, preset="attention+ff", text_encoder=True),
    "oft": Lora(adapter="oft", rank=4, preset="transformer"),
    "dora": Lora(rank=2, dora=True, preset="all-linear"),
    "dreambooth": DreamBooth(rank=2, class_prompts=("a dog",)),
    "dreambooth-base": DreamBooth(rank=2, prior="base", class_prompts=("a dog",), text_encoder=True),
    "full": Full(text_encoder=True),
    "dreambooth-full": DreamBoothFull(class_prompts=("a dog",)),
    "dreambooth-full-base": DreamBoothFull(prior="base", class_prompts=("a dog",)),
    "textual-inversion": TextualInversion(tokens=WORDS, vectors=2, initializer=("d", "")),
    "pivotal": Pivotal(tokens=WORDS, rank=2, text_encoder=True),
}
UNREAD = {
    "qwen-image": (
        *(f"transformer_blocks.1.attn.{name}" for name in ("add_q_proj", "to_add_out", "norm_added_q")),
        "transformer_blocks.1.txt_mlp",
    ),
    "sd3": ("transformer_blocks.1.attn.add_q_proj", "transformer_blocks.1.attn.norm_added_q"),
}
"""Family -> the toy's layers whose answer is read by nobody."""
CAPTION = "<toy> <dog> b"
GEOMETRY = torch.tensor([[tiny.HEIGHT, tiny.WIDTH, 0, 0, tiny.HEIGHT, tiny.WIDTH]])


def family_of(name: str, dtype: torch.dtype = torch.float32) -> Family:
    return FAMILIES[name](tiny.pipeline(name).to(dtype))


def draws(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def batch(family: Family, method: Method, seed: int = 0) -> Batch:
    """As the loader makes it."""
    latents_BCHW, other_BCHW = (tiny.latents(family.pipe, number) for number in (seed, seed + 100))
    said = [family.encode_captions([text], GEOMETRY) for text in (CAPTION, "a dog")]
    if not (method.wants_prior or method.prior_by_base):
        return Batch(latents_BCHW, said[0])
    if method.wants_prior:
        return Batch(latents_BCHW, said[0], prior=Batch(other_BCHW, said[1]))
    before = None
    if method.trains_text:
        with torch.no_grad(), method.untouched(family) as base:
            before = base.encode_captions(["a dog"], GEOMETRY)
    return Batch(latents_BCHW, said[0], prior=Batch(latents_BCHW, said[1], base_cond=before))


def trained(family: Family, method: Method, steps: int = 2, autocast: bool = False) -> list[Trained]:
    """As a run does it; every loss is a number."""
    method.prepare(family)
    parts = method.adapt(family, seed=1)
    assert all(p.dtype == torch.float32 and p.requires_grad for part in parts for p in part.parameters.values())
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters.values()], lr=1e-2)
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = method.loss(family, family.objective(), batch(family, method, step), draws(step))
        assert torch.isfinite(loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return parts


def weights(family: Family) -> dict[str, Tensor]:
    """Every weight of the pipeline by its name, as it is now."""
    parts = [(name, part) for name, part in family.pipe.components.items() if isinstance(part, nn.Module)]
    return {
        f"{name}.{key}".replace(".base_layer", ""): p.detach().clone()
        for name, part in parts
        for key, p in part.named_parameters()
    }


def cells() -> list[Any]:
    """Every method on every family; of kinds of adapter one family each, and all of them by the slow tests."""
    names, places = list(FAMILIES), list(METHOD)
    return [
        pytest.param(
            name,
            how,
            marks=[] if how in METHODS or name == names[places.index(how) % len(names)] else [pytest.mark.slow],
        )
        for name, how in fitting.cells(METHOD)
    ]


@pytest.mark.parametrize(("name", "how"), cells())
def test_what_is_trained_moves_and_all_else_stays(name: str, how: str) -> None:
    family, method = family_of(name), fitted(METHOD[how], name)
    method.prepare(family)
    before, start = weights(family), weights_of(method.adapt(family_of(name), seed=1))
    now = weights_of(trained(family, method))
    assert start.keys() == now.keys()
    still = {key for key in now if torch.equal(start[key], now[key]) and not unused(family, key)}
    assert now and not still
    after = weights(family)
    moved = {key for key, was in before.items() if not torch.equal(after[key], was)}
    assert moved == {key for key in before if key in now and not unused(family, key)} | rows(family)


def weights_of(parts: list[Trained]) -> dict[str, Tensor]:
    return {f"{part.part}.{key}": p.detach().clone() for part in parts for key, p in part.parameters.items()}


def rows(family: Family) -> set[str]:
    """Names of the embeddings of new words, which there are before they are trained."""
    found = [
        (part, name) for part in family.text_encoders for name, m in family.part(part).named_modules() if isinstance(m, NewRows)
    ]
    return {f"{part}.{name}.new.weight" for part, name in found}


def unused(family: Family, named: str) -> bool:
    """SDXL reads its encoders before their last layer, and the pooled answer of the second alone. Where text and picture are one
    sequence, the last layer's answer to the text is read by nobody."""
    if named.startswith("transformer."):  # whole weights move even so: they decay
        asked = ".default" in named  # ... but for those that are not even computed
        return any(end in named and (asked or "_q" not in end) for end in UNREAD.get(family.name, ()))
    return family.name == "sdxl" and named.startswith("text_encoder.") and ("layers.1." in named or "final_layer_norm" in named)


def test_the_table_has_every_method() -> None:
    assert {type(method) for method in METHOD.values()} == set(METHODS.values())
    assert {method.adapter for method in METHOD.values() if isinstance(method, Lora)} == {"lora", "loha", "lokr", "oft"}
    for kind in METHODS.values():
        assert kind().name == kind.name  # a recipe's defaults are those of a method that nothing was said about


@pytest.mark.parametrize("how", METHOD)
def test_a_run_is_its_seed(how: str) -> None:
    method = METHOD[how]

    def drawn(seed: int, spoilt: int) -> dict[str, Tensor]:
        torch.manual_seed(spoilt)  # what ran before must not matter
        family = family_of("sd1")
        method.prepare(family)
        before = torch.get_rng_state()
        parts = method.adapt(family, seed)
        assert torch.equal(torch.get_rng_state(), before)
        return weights_of(parts)

    one, same, other = drawn(1, 5), drawn(1, 6), drawn(2, 5)
    assert one.keys() == same.keys() == other.keys()
    assert all(torch.equal(one[key], same[key]) for key in one)
    random = how not in ("full", "dreambooth-full", "dreambooth-full-base", "oft")  # these start from what there is, or at zero
    assert any(not torch.equal(one[key], other[key]) for key in one) == random


@pytest.mark.parametrize("how", METHOD)
def test_a_base_in_half_precision_is_trained_in_float32(how: str) -> None:
    names = [name for name, other in fitting.cells(METHOD) if other == how]
    name = names[list(METHOD).index(how) % len(names)]
    family, method = family_of(name, torch.bfloat16), fitted(METHOD[how], name)
    trained(family, method, steps=1, autocast=True)
    method.settle(family)
    base = [p for part in (family.model, *(family.part(name) for name in family.text_encoders)) for p in part.named_parameters()]
    adapters = {key for key, p in base if p.dtype == torch.float32}
    assert all(".default" in key for key in adapters)


ADAPTERS = [
    Lora(adapter=kind, preset=preset, rank=4)
    for kind in ("lora", "loha", "lokr", "oft")
    for preset in ("attention", "transformer")
]  # type: ignore[arg-type]
ADAPTERS += [Lora(adapter=kind, preset="conv", rank=4) for kind in ("lora", "loha", "lokr")]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ADAPTERS, ids=lambda m: f"{m.adapter}-{m.preset}")
def test_a_new_adapter_changes_nothing(method: Lora) -> None:
    family = family_of("sd2")
    given = batch(family, method)
    before = family.predict(given.latents_BCHW, torch.tensor([3]), given.cond)
    method.adapt(family, seed=0)
    assert torch.equal(family.predict(given.latents_BCHW, torch.tensor([3]), given.cond), before)


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        (Lora(rank=4, alpha=2), 0.5),
        (Lora(rank=4), 1),
        (Lora(rank=4, alpha=8, rslora=True), 4),
        (Lora(adapter="loha", rank=4, alpha=2), 0.5),
        (Lora(adapter="lokr", rank=4), 1),
    ],
)
def test_an_adapter_is_scaled_by_alpha(method: Lora, scale: float) -> None:
    family = family_of("sd1")
    method.adapt(family, seed=0)
    assert {module.scaling["default"] for module in family.model.modules() if hasattr(module, "scaling")} == {scale}


def test_what_oft_rotates_keeps_its_length() -> None:
    family = family_of("sd1")
    for parameter in Lora(adapter="oft", rank=4).adapt(family, seed=0)[0].parameters.values():
        parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    layer: Any = family.model.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    turned = layer.get_delta_weight("default")
    assert (turned - torch.eye(16)).abs().max() > 0.5
    torch.testing.assert_close(turned @ turned.T, torch.eye(16))


def test_each_preset_takes_more_layers() -> None:
    def layers(**told: Any) -> set[str]:
        part = Lora(rank=2, **told).adapt(family_of("sd1"), seed=0)[0]
        return {name.split(".lora_")[0] for name in part.parameters}

    attention, ff, transformer, conv = (layers(preset=p) for p in ("attention", "attention+ff", "transformer", "conv"))
    assert attention < ff < transformer < conv
    assert attention < layers(preset="all-linear")
    assert {name.rsplit(".", 1)[-1] for name in layers(preset="conv", targets=("to_q",))} == {"to_q"}


def test_the_parts_say_of_what_kind_they_are() -> None:
    family = family_of("sdxl")
    told = [(part.part, part.kind) for part in Pivotal(tokens=WORDS, rank=2, text_encoder=True).adapt(family, seed=0)]
    text = [(part, kind) for kind in ("text", "tokens") for part in ("text_encoder", "text_encoder_2")]
    assert told == [("unet", "denoiser"), *text]


# The prior


@pytest.mark.parametrize("how", ["dreambooth-base", "dreambooth-full-base"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_prior_by_the_base_is_nothing_at_first_and_then_what_was_forgotten(name: str, how: str) -> None:
    method: Any = fitted(METHOD[how], name)
    family, fresh = family_of(name), family_of(name)
    parts = method.adapt(family, seed=0)
    given = batch(family, method)
    subject = denoising_loss(family, family.objective(), given, draws(3))
    assert torch.equal(method.loss(family, family.objective(), given, draws(3)), subject)
    with torch.no_grad():
        for place, parameter in enumerate(p for part in parts for p in part.parameters.values()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(place)))
    given = batch(family, method)
    said = fresh.encode_captions(["a dog"], GEOMETRY)
    assert given.prior is not None
    if method.trains_text:
        assert given.prior.base_cond is not None and all(torch.equal(given.prior.base_cond[key], said[key]) for key in said)
        assert any(not torch.equal(given.prior.cond[key], said[key]) for key in said)  # FLUX.1's CLIP says the pooled text alone
    noised = family.objective().noise(given.latents_BCHW, draws(3))
    before, now = (f.predict(noised.noisy_BCHW, noised.time_B, c) for f, c in ((fresh, said), (family, given.prior.cond)))
    held = ((now - before) ** 2).mean()
    subject = denoising_loss(family, family.objective(), given, draws(3))
    both = replace(method, prior_weight=0.5).loss(family, family.objective(), given, draws(3))
    assert held > 1e-4
    torch.testing.assert_close(both, subject + 0.5 * held)


def test_class_pictures_are_learnt_under_their_own_words() -> None:
    method: Any = replace(METHOD["dreambooth"], prior_weight=0.5)  # type: ignore[type-var]
    family = family_of("sd1")
    method.adapt(family, seed=0)
    given, objective = batch(family, method), family.objective()
    assert given.prior is not None
    drawn, mixed = draws(3), draws(3)
    expected = denoising_loss(family, objective, replace(given, prior=None), drawn)
    expected = expected + 0.5 * denoising_loss(family, objective, given.prior, drawn)
    told = method.loss(family, objective, given, draws(3))
    torch.testing.assert_close(told, expected)
    other = denoising_loss(family, objective, given, mixed)
    other = other + 0.5 * denoising_loss(family, objective, replace(given.prior, cond=given.cond), mixed)
    assert abs(float((told - other).detach())) > 1e-5


def test_asking_the_base_leaves_gradients_and_what_learns_as_they_were() -> None:
    method = replace(METHOD["dreambooth-base"], prior_weight=0.0)  # type: ignore[type-var]
    grads = []
    for asked in (False, True):
        family = family_of("sd1")
        parts = method.adapt(family, seed=0)
        stopped = next(iter(parts[0].parameters.values())).requires_grad_(False)  # as a stage of a run may have it
        given = batch(family, method)
        if asked:
            with torch.no_grad(), method.untouched(family) as base:
                base.predict(given.latents_BCHW, torch.tensor([3]), given.cond)
        assert not stopped.requires_grad
        method.loss(family, family.objective(), given, draws(3)).backward()
        grads.append([p.grad for part in parts for p in part.parameters.values()])
    assert grads[0][0] is None and grads[1][0] is None
    assert all(torch.equal(a, b) for a, b in zip(grads[0][1:], grads[1][1:], strict=True))
    assert any(grad.any() for grad in grads[1][1:])


def test_the_teacher_is_let_go_at_the_end_and_shares_what_is_not_trained() -> None:
    family, method = family_of("sdxl", torch.bfloat16), METHOD["dreambooth-full-base"]
    method.adapt(family, seed=0)
    assert family.teacher is not None and family.teacher.pipe.vae is family.pipe.vae
    assert family.teacher.pipe.text_encoder is family.pipe.text_encoder
    assert {p.dtype for p in family.teacher.model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in family.teacher.model.parameters())
    method.settle(family)
    assert family.teacher is None
    assert {(p.dtype, p.requires_grad) for p in family.model.parameters()} == {(torch.bfloat16, False)}


def test_without_class_there_is_no_prior() -> None:
    family = family_of("sd1")
    given = replace(batch(family, Lora()), prior=None)
    for method in (DreamBooth(), DreamBooth(prior="base"), DreamBoothFull(prior="base")):
        assert (method.wants_prior, method.prior_by_base) == (method.prior == "pictures", method.prior == "base")
        with pytest.raises(
            ConfigError, match=r"class_prompts: prior preservation needs to know the class. Fix: set class_prompts"
        ):
            method.loss(family, family.objective(), given, draws(3))
        off = replace(method, prior_weight=0.0)
        assert not off.wants_prior and not off.prior_by_base
        assert torch.equal(
            off.loss(family, family.objective(), given, draws(3)), denoising_loss(family, family.objective(), given, draws(3))
        )


def test_a_mask_weighs_places_and_each_sample_by_its_own() -> None:
    family = family_of("sd1")
    given = batch(family, Lora())
    objective = family.objective()
    whole = denoising_loss(family, objective, given, draws(3))
    ones_B1HW = torch.ones_like(given.latents_BCHW[:, :1])
    torch.testing.assert_close(denoising_loss(family, objective, replace(given, mask_B1HW=ones_B1HW * 0.3), draws(3)), whole)
    mask_B1HW = ones_B1HW.clone()
    mask_B1HW[..., 4:] = 0
    noised = objective.noise(given.latents_BCHW, draws(3))
    answer_BCHW = family.predict(noised.noisy_BCHW, noised.time_B, given.cond)
    expected = (answer_BCHW - noised.target_BCHW).square()[..., :4].mean()
    torch.testing.assert_close(denoising_loss(family, objective, replace(given, mask_B1HW=mask_B1HW), draws(3)), expected)


# New words


@pytest.mark.parametrize("how", ["textual-inversion", "pivotal"])
@pytest.mark.parametrize("name", [name for name, kind in FAMILIES.items() if kind.learns_words])
def test_new_words_are_new_rows_and_nothing_else(name: str, how: str) -> None:
    family, method = family_of(name), METHOD[how]
    before = {part: family.part(part).get_input_embeddings().weight.clone() for part in family.text_encoders}
    trained(family, method)
    grown = {part: family.part(part).get_input_embeddings() for part in family.text_encoders}
    count = len(WORDS) * method.vectors  # type: ignore[attr-defined]
    for part, (embedding, tokenizer) in zip(grown, zip(grown.values(), family.tokenizers, strict=True), strict=True):
        assert isinstance(embedding, NewRows) and embedding.old.weight.grad is None and embedding.new.weight.shape == (count, 32)
        assert len(getattr(family.pipe, tokenizer)) == len(before[part]) + count
    learnt = {part: embedding.new.weight.detach().clone() for part, embedding in grown.items()}
    said = family.encode_captions([CAPTION], GEOMETRY)
    method.settle(family)
    method.settle(family)  # once more does no harm
    for part, was in before.items():
        embedding: Any = family.part(part).get_input_embeddings()
        assert type(embedding) is nn.Embedding and family.part(part).config.vocab_size == len(was) + count  # type: ignore[union-attr]
        assert torch.equal(embedding.weight, torch.cat([was, learnt[part]])) and not embedding.weight.requires_grad
        assert torch.equal(torch.cat(list(family.learned[part].values())), learnt[part]) and tuple(family.learned[part]) == WORDS
    settled = family.encode_captions([CAPTION], GEOMETRY)
    assert all(torch.equal(settled[key], said[key]) for key in said)


def test_a_word_of_several_vectors_is_read_as_diffusers_reads_it() -> None:
    family = family_of("sd1")
    TextualInversion(tokens=("<toy>",), vectors=3).prepare(family)
    pipe = family.pipe
    assert pipe.maybe_convert_prompt("a <toy> b", pipe.tokenizer) == "a <toy> <toy>_1 <toy>_2 b"
    assert family.count_tokens("a <toy> b").seen == 2 + 5
    heard: list[Tensor] = []
    hook = pipe.text_encoder.get_input_embeddings().register_forward_hook(lambda _, given, __: heard.append(given[0]))
    family.encode_captions(["a <toy> b"], GEOMETRY)
    hook.remove()
    assert heard[0][0, :7].tolist() == [53, 26, 55, 56, 57, 27, 54]


def test_a_word_starts_as_a_known_one_or_as_spread_as_all_are() -> None:
    family = family_of("sd1")
    method = TextualInversion(tokens=("<dog>", "<toy>"), vectors=3, initializer=("dog", ""))
    made = method.adapt(family, seed=0)[0].parameters["tokens"]
    old = family.part("text_encoder").get_input_embeddings().old.weight
    assert torch.equal(made[:3], old[family.pipe.tokenizer("dog", add_special_tokens=False).input_ids])
    assert 0.5 < made[3:].std() / old.std() < 2
    one = (
        TextualInversion(tokens=("<dog>",), vectors=2, initializer=("b",)).adapt(family_of("sd1"), seed=0)[0].parameters["tokens"]
    )
    assert torch.equal(one[0], one[1]) and torch.equal(one[0], old[27])


def test_words_that_no_caption_holds_are_told() -> None:
    method = TextualInversion(tokens=("<dog>", "<toy>", "<cat>"))
    assert method.missing_tokens(["a <toy> b", "c <Cat>"]) == ("<dog>", "<cat>")
    assert method.missing_tokens(["<toy><dog> <cat>"]) == () == Lora().missing_tokens([])


# What is wrong


def prepared(**told: Any) -> Callable[[], Any]:
    return lambda: TextualInversion(**told).prepare(family_of("sd1"))


def adapted(method: Callable[[], Method], name: str = "sd1") -> Callable[[], Any]:
    return lambda: method().adapt(family_of(name), seed=0)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "alpha of oft": (lambda: Lora(adapter="oft", alpha=4), "alpha: means nothing for oft"),
    "dropout of oft": (lambda: Lora(adapter="oft", dropout=0.1), "dropout: means nothing for oft"),
    "dora of loha": (lambda: Lora(adapter="loha", dora=True), "dora: means nothing for loha"),
    "rslora of lokr": (lambda: DreamBooth(adapter="lokr", rslora=True), "rslora: means nothing for lokr"),
    "rank": (lambda: Pivotal(rank=0), "rank: must be above 0"),
    "dropout": (lambda: DreamBooth(dropout=2), "dropout: must lie between 0 and 1"),
    "prior": (lambda: DreamBoothFull(prior_weight=-1), "prior_weight: must be 0 or more"),
    "count": (lambda: DreamBooth(class_count=0), "class_count: must be above 0"),
    "oft on a convolution": (adapted(lambda: Lora(adapter="oft", preset="conv")), "a convolution. Fix: preset ="),
    "oft of a wrong size": (adapted(lambda: Lora(adapter="oft", rank=5)), "which blocks of 5 do not fill. Fix: rank = 4"),
    "target": (
        adapted(lambda: Pivotal(tokens=("<toy>",), targets=("to_kk",))),
        "'to_kk' is no layer of the unet; did you mean 'to_k'",
    ),
    "no word": (adapted(TextualInversion), "tokens: names no new word"),
    "two words in one": (lambda: TextualInversion(tokens=("a b",)), "'a b' cannot be a new word. Fix: write it like <cat-toy>"),
    "capitals": (lambda: Pivotal(tokens=("<Toy>",)), "'<Toy>' cannot be a new word"),
    "the same word": (lambda: TextualInversion(tokens=("<a>", "<a>")), "'<a>' is there twice"),
    "a word in a word": (lambda: TextualInversion(tokens=("<a>", "<a>-1")), "'<a>' is a part of '<a>-1'"),
    "a known word": (prepared(tokens=("b",)), "'b' is a word that the tokenizer knows already. Fix: write it like <b>"),
    "vectors": (lambda: TextualInversion(vectors=0), "vectors: must be above 0"),
    "initializers": (lambda: TextualInversion(tokens=("<a>",), initializer=("b", "c")), "names 2 words for 1 tokens"),
    "a long initializer": (prepared(tokens=("<a>",), initializer=("dog",)), "'dog' is 3 tokens, and a new word has 1 vectors"),
    "a strange initializer": (prepared(tokens=("<a>",), initializer=("é",)), "'é' is no word to the tokenizer"),
    "a word that is cut": (
        lambda: TextualInversion(tokens=("<cat>",)).prepare(family_of("sd2")),
        "the tokenizer reads '<cat>' as",
    ),
    "fewer bits": (lambda: Full().check(quantized("int8")), "whole weights cannot be trained in fewer bits"),
    "four bits": (lambda: Lora(adapter="lokr").check(quantized("nf4")), "nf4 does not go with lokr"),
    "no teacher": (lambda: METHOD["full"].untouched(family_of("sd1")).__enter__(), "keeps no copy of the base"),
}


def quantized(kind: str) -> Family:
    family = family_of("sd1")
    family.quantize = kind
    return family


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_line(what: str) -> None:
    act, said = WRONG[what]
    with pytest.raises(ConfigError) as told:
        act()
    line = told.value.line()
    assert said in line and "\n" not in line and line.startswith("error[E-CLI-")


def test_a_family_is_adapted_once() -> None:
    family = family_of("sd1")
    method = Pivotal(tokens=("<toy>",), rank=2)
    method.prepare(family)
    method.prepare(family)
    assert len(family.pipe.tokenizer) == 56
    method.adapt(family, seed=0)
    with pytest.raises(ModelError, match=r"the unet has an adapter already. Fix: open the base anew"):
        method.adapt(family, seed=0)
    for other in (TextualInversion(tokens=("<dog>",)), TextualInversion(tokens=("<toy>",), vectors=2), TextualInversion()):
        with pytest.raises(ConfigError, match=r"other words are being trained here. Fix: open the base anew|names no new word"):
            other.prepare(family)


def test_the_same_words_twice_are_known_already() -> None:
    family = family_of("sdxl")
    method = TextualInversion(tokens=("<toy>",), vectors=2)
    method.adapt(family, seed=0)
    method.settle(family)
    with pytest.raises(ConfigError, match="'<toy>' is a word that the tokenizer knows already"):
        method.prepare(family)
    with pytest.raises(ConfigError, match="'<toy>_1' is a word"):
        TextualInversion(tokens=("<toy>_1",)).prepare(family)
