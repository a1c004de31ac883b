"""Every family keeps the same promises; a new one gets these tests by standing in FAMILIES."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EDMEulerScheduler, StableDiffusionXLImg2ImgPipeline
from huggingface_hub import HfApi
from peft import LoraConfig

import tiny
import toyset
from fitting import fitted
from hf_diffusion_kit import digits
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.errors import ConfigError, FamilyError, KitError, ModelError
from hf_diffusion_kit.evaluation.gallery import call_of
from hf_diffusion_kit.families import FAMILIES, Family, TokenCount, detect, quantized
from hf_diffusion_kit.families.tokens import token_counter
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.methods import Batch, Lora
from hf_diffusion_kit.training.settings import TrainSettings
from hf_diffusion_kit.training.trainer import Trainer

GEOMETRY_B6 = torch.tensor([[40, 60, 1, 2, tiny.HEIGHT, tiny.WIDTH]] * 2)
CONFIGS = {  # as they stand on the Hub, the fields that matter
    "sd1": ("StableDiffusionPipeline", {"cross_attention_dim": 768, "attention_head_dim": 8}),
    "sd2": ("StableDiffusionPipeline", {"cross_attention_dim": 1024, "use_linear_projection": True}),
    "sd3": ("StableDiffusion3Pipeline", {"joint_attention_dim": 4096}),
    "flux": ("FluxPipeline", {"guidance_embeds": True}),
    "flux-schnell": ("FluxPipeline", {"guidance_embeds": False}),
    "flux2-klein": ("Flux2KleinPipeline", {"guidance_embeds": False}),
    "z-image": ("ZImagePipeline", {"all_patch_size": [2]}),
    "qwen-image": ("QwenImagePipeline", {"guidance_embeds": False}),
    "sana": ("SanaPipeline", {"guidance_embeds": False}),
    "lumina2": ("Lumina2Pipeline", {"cap_feat_dim": 2304}),
    "chroma": ("ChromaPipeline", {"num_single_layers": 38}),
    "auraflow": ("AuraFlowPipeline", {"joint_attention_dim": 2048}),
    "sdxl": ("StableDiffusionXLPipeline", {"cross_attention_dim": 2048, "addition_embed_type": "text_time"}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family's toy."""
    folders = {name: tmp_path_factory.mktemp(name) for name in FAMILIES}
    for name, folder in folders.items():
        tiny.pipeline(name).save_pretrained(folder)
    return folders


def picture(pipe: Any) -> torch.Tensor:
    call = {"num_inference_steps": 2, **tiny.sized(pipe), "output_type": "pt", **call_of(pipe, 4.0)}
    pipe.set_progress_bar_config(disable=True)
    return pipe(prompt="the cat", generator=torch.Generator().manual_seed(7), **call).images


def batch_of(family: Family) -> Batch:
    pixels = torch.rand(2, 3, *tiny.size(family.pipe), generator=torch.Generator().manual_seed(0)) * 2 - 1
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    with torch.no_grad():
        cond = family.encode_captions(["the cat", "a dog"], GEOMETRY_B6)
    return Batch(family.encode_images(pixels, generators), cond)


def losses(family: Family, method: Lora, steps: int, dtype: torch.dtype | None = None) -> list[float]:
    """Of one batch at one noise, again and again."""
    parameters = [p for part in method.adapt(family, seed=0) for p in part.parameters.values()]
    assert all(p.dtype == torch.float32 for p in parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    objective, batch, told = family.objective(), batch_of(family), []
    for _ in range(steps):
        generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = method.loss(family, objective, batch, generators)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        told.append(loss.item())
    return told


# Which family it is


UNETS = [name for name, kind in FAMILIES.items() if kind.denoiser == "unet"]


def config_folder(folder: Path, class_name: str, denoiser: dict[str, Any]) -> Path:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    for part in ("unet", "transformer"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps({"_class_name": "", **denoiser}))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_told_by_configuration_alone(name: str, tmp_path: Path) -> None:
    assert detect(config_folder(tmp_path, *CONFIGS[name])).name == name


@pytest.mark.parametrize("other", [{"in_channels": 9}, {"time_cond_proj_dim": 256}])
@pytest.mark.parametrize("name", UNETS)
def test_bases_that_are_asked_for_more_are_no_bases(name: str, other: dict[str, Any], tmp_path: Path) -> None:
    """For painting into pictures, and distilled to few steps."""
    class_name, unet = CONFIGS[name]
    with pytest.raises(FamilyError, match=f"is a {class_name}, a kind of it that no family here opens"):
        detect(config_folder(tmp_path, class_name, unet | other))


def test_what_no_family_opens_is_said(tmp_path: Path) -> None:
    other = config_folder(tmp_path, "StableDiffusionXLPipeline", {"cross_attention_dim": 2048})
    with pytest.raises(FamilyError, match=r"is a StableDiffusionXLPipeline, a kind of it that no .*known: .*\(sd2\)"):
        detect(other)
    (other / "model_index.json").write_text('{"_class_name": "LattePipeline"}')
    with pytest.raises(FamilyError, match="is a LattePipeline, which no family here opens; known: "):
        detect(other)
    (other / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (other / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match="cannot be opened"):
        detect(other)


def test_a_hub_id_is_told_by_two_files_and_opened_without_what_is_left_out(
    hub: Any, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a revision: main holds another family by now."""
    for name in ("huggingface_hub.constants.ENDPOINT", "huggingface_hub.hf_api.api.endpoint"):
        monkeypatch.setattr(name, hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    base = tmp_path / "base"
    tiny.pipeline("sd2").save_pretrained(base)
    (base / "safety_checker").mkdir()
    (base / "safety_checker" / "config.json").write_text("{}")
    (base / "safety_checker" / "model.safetensors").write_bytes(
        (base / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    )
    index = json.loads((base / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (base / "model_index.json").write_text(json.dumps(index))
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo("you/base", private=False)
    first = api.upload_folder(repo_id="you/base", folder_path=base).oid
    api.upload_folder(repo_id="you/base", folder_path=bases["sdxl"])
    hub.requests.clear()
    assert detect("you/base", revision=first).name == "sd2" and detect("you/base").name == "sdxl"
    assert {line.split(" ")[1].split("/", 5)[-1] for line in hub.requests} == {"model_index.json", "unet/config.json"}
    family = FAMILIES["sd2"].open("you/base", revision=first)
    assert family.origin and not (family.origin.folder / "safety_checker").exists()
    torch.testing.assert_close(picture(family.pipe), picture(tiny.pipeline("sd2")), rtol=0, atol=0)
    assert family.release() and family.part("vae").device.type == "meta"
    hub.requests.clear()
    family.recall()
    assert not hub.requests  # from the Hub's own cache
    torch.testing.assert_close(picture(family.pipe), picture(tiny.pipeline("sd2")), rtol=0, atol=0)


def test_a_pipeline_of_another_family_is_refused() -> None:
    with pytest.raises(FamilyError, match="is a StableDiffusionPipeline of another family than sd1"):
        FAMILIES["sd1"](tiny.pipeline("sd2"))
    with pytest.raises(FamilyError, match="'sdxl' opens a StableDiffusionXLPipeline, got a StableDiffusionPipeline"):
        FAMILIES["sdxl"](tiny.pipeline("sd1"))
    pipe = tiny.pipeline("sdxl")
    with pytest.raises(FamilyError, match="'sdxl' opens a StableDiffusionXLPipeline, got a StableDiffusionXLImg2Img"):
        FAMILIES["sdxl"](StableDiffusionXLImg2ImgPipeline(**pipe.components, add_watermarker=False))
    pipe.text_encoder = None
    with pytest.raises(FamilyError, match="has no text_encoder, without which a sdxl cannot be trained"):
        FAMILIES["sdxl"](pipe)


def test_a_base_that_is_noised_otherwise_is_refused() -> None:
    pipe = tiny.pipeline("sdxl")
    pipe.scheduler = EDMEulerScheduler()
    with pytest.raises(FamilyError, match="is noised by a EDMEulerScheduler"):
        FAMILIES["sdxl"](pipe).objective()


def test_v_prediction_is_taken_from_the_checkpoint() -> None:
    told = {name: FAMILIES[name](tiny.pipeline(name)).objective().prediction for name in UNETS}  # type: ignore[attr-defined]
    assert told == {"sd1": "epsilon", "sd2": "v_prediction", "sdxl": "epsilon"}


# Tokens


def test_of_several_tokenizers_the_longest_counts(bases: dict[str, Path]) -> None:
    """CLIP hears the beginning of a caption; T5 hears 256 tokens of it."""
    family = FAMILIES["sd3"](tiny.pipeline("sd3"))
    count, most = token_counter(bases["sd3"])
    assert (count("th" * 20), most) == (42, 256)  # 40 letters, the mark of a new word, the end
    assert family.count_tokens("th" * 20) == TokenCount(42, 0) and family.count_tokens("a" * 300) == TokenCount(256, 46)


def test_of_two_tokenizers_the_one_that_cuts_most_counts(bases: dict[str, Path]) -> None:
    """The first reads `th` as one token, the second `do`."""
    family = FAMILIES["sdxl"](tiny.pipeline("sdxl"))
    count, most = token_counter(bases["sdxl"])
    for text in ("th" * 20, "do" * 20):
        assert (family.count_tokens(text).seen, family.count_tokens(text).cut) == (16, 26)
        assert (count(text), most) == (42, 16)
    first, second = (len(getattr(family.pipe, name)("th" * 20).input_ids) for name in family.tokenizers)
    assert first < second == 42


def test_a_base_without_tokenizer_has_a_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="names no tokenizer"):
        token_counter(config_folder(tmp_path, *CONFIGS["sd1"]))


def test_a_word_of_several_vectors_counts_as_many() -> None:
    family = FAMILIES["sd1"](tiny.pipeline())
    family.pipe.tokenizer.add_tokens(["<dog>", "<dog>_1"])
    plain, told = family.count_tokens("a b"), family.count_tokens("a <dog>")
    assert told.seen == plain.seen + 1


# Targets


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name, kind in FAMILIES.items() for preset in kind.target_presets]
)
def test_presets_fit_and_stock_diffusers_reads_them(name: str, preset: str, bases: dict[str, Path], tmp_path: Path) -> None:
    family, linear = FAMILIES[name].open(bases[name]), torch.nn.Linear
    layers = {n: m for n, m in family.model.named_modules() if isinstance(m, linear | torch.nn.Conv2d)}
    trained = fitted(Lora(rank=2, preset=preset, text_encoder=True), name).adapt(family, seed=0)  # type: ignore[arg-type]
    assert [part.part for part in trained] == [family.denoiser, *(family.trains_text_encoders or ())]
    adapted = {key.split(".lora_")[0] for key in trained[0].parameters}
    if preset == "all-linear":
        assert adapted == {n for n, m in layers.items() if isinstance(m, linear)}
    if preset == "conv":
        assert layers.keys() - adapted == {n for n in layers if n in ("conv_in", "conv_out") or "emb" in n}
    for part in trained:
        for parameter in part.parameters.values():
            parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    expected = picture(family.pipe)
    FORMATS["diffusers-lora"].write(family, tmp_path)
    fresh = FORMATS["diffusers-lora"].read(type(family), bases[name], tmp_path, revision=None, dtype=torch.float32)
    assert torch.equal(picture(fresh), expected) and not torch.equal(picture(tiny.pipeline(name)), expected)


def test_presets_fit_the_embedded_base() -> None:
    family = FAMILIES["sd1"].open(digits.path("digits"))
    for preset in family.target_presets:
        Lora(preset=preset, text_encoder=True).check(family)  # type: ignore[arg-type]


def test_all_linear_names_a_layer_in_full_where_its_end_is_not_enough() -> None:
    from hf_diffusion_kit.families.targets import linear_ends

    inner = torch.nn.ModuleDict({"proj": torch.nn.Linear(2, 2), "out": torch.nn.ModuleList([torch.nn.Linear(2, 2)])})
    model = torch.nn.ModuleDict({"a": inner, "b": torch.nn.ModuleDict({"proj": torch.nn.Conv2d(1, 1, 1)})})
    assert linear_ends(model) == ("a.proj", "out.0")


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'atention'; did you mean 'attention'"):
        FAMILIES["sd1"](tiny.pipeline()).targets("atention", "unet")


# Memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_released_is_gone_and_comes_back_as_it_was(
    name: str, dtype: torch.dtype, bases: dict[str, Path], tmp_path: Path
) -> None:
    family = FAMILIES[name].open(bases[name], dtype=dtype)
    parts = ("vae", *family.text_encoders)
    before = {part: {key: value.clone() for key, value in family.part(part).state_dict().items()} for part in parts}
    expected, held = picture(family.pipe), [weakref.ref(p) for part in parts for p in family.part(part).parameters()]
    assert family.can_release and family.release() == parts
    assert not [ref for ref in held if ref() is not None]
    assert all(p.device.type == "meta" for part in parts for p in family.part(part).parameters())
    assert family.release() == ()  # nothing is left to go
    family.to(torch.device("cpu"), encoders=False)  # the denoiser goes where it is wanted; what is gone stays gone
    assert family.part("vae").device.type == "meta" and family.device.type == "cpu"
    family.to(torch.device("cpu"), encoders=True)
    for part in parts:
        model = family.part(part)
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        after = model.state_dict()
        assert after.keys() == before[part].keys()
        assert all(after[key].dtype == value.dtype and torch.equal(after[key], value) for key, value in before[part].items())
    assert torch.equal(picture(family.pipe), expected)
    family.pipe.save_pretrained(tmp_path)
    assert torch.equal(picture(FAMILIES[name].open(tmp_path, dtype=dtype).pipe), expected)
    assert family.release() == parts  # and again


def lora(family: Family) -> None:
    for name in family.text_encoders:
        family.part(name).add_adapter(LoraConfig(target_modules=["q_proj", "q"]))  # type: ignore[operator]


def full(family: Family) -> None:
    for name in family.text_encoders:
        family.part(name).requires_grad_(True)


def once(family: Family) -> None:
    """Trained for a step, then frozen again."""
    for name in family.text_encoders:
        parameters = list(family.part(name).requires_grad_(True).parameters())
        optimizer = torch.optim.SGD(parameters, lr=1e-3)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        family.part(name).requires_grad_(False)


def words(family: Family) -> None:
    """New tokens, as textual inversion adds them."""
    for name in family.text_encoders:
        model = family.part(name)
        model.resize_token_embeddings(model.get_input_embeddings().num_embeddings + 1, mean_resizing=False)
        model.requires_grad_(False)


@pytest.mark.parametrize("change", [lora, full, once, words])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_trained_is_never_released(name: str, change: Callable[[Family], None], bases: dict[str, Path]) -> None:
    family = FAMILIES[name].open(bases[name])
    change(family)
    before = {part: family.part(part).state_dict() for part in family.text_encoders}
    before = {part: {key: value.clone() for key, value in told.items()} for part, told in before.items()}
    assert family.release() == ("vae",)
    family.recall()
    for part, told in before.items():
        assert all(torch.equal(family.part(part).state_dict()[key], value) for key, value in told.items())


def test_what_is_to_be_kept_is_kept(bases: dict[str, Path]) -> None:
    family = FAMILIES["sdxl"].open(bases["sdxl"])
    assert family.release(keep=["text_encoder_2"]) == ("vae", "text_encoder")
    assert family.part("text_encoder_2").device.type == "cpu"
    assert family.release() == ("text_encoder_2",)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pipeline_in_memory_is_kept(name: str) -> None:
    family = FAMILIES[name](tiny.pipeline(name))
    expected = picture(family.pipe)
    assert not family.can_release
    family.release()
    assert family.part("vae").device.type == "cpu"
    family.recall()
    assert torch.equal(picture(family.pipe), expected)


def test_files_that_are_gone_when_they_are_wanted_again_have_a_line(tmp_path: Path) -> None:
    tiny.pipeline().save_pretrained(tmp_path)
    family = FAMILIES["sd1"].open(tmp_path)
    family.release()
    (tmp_path / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="text_encoder: cannot be opened"):
        family.recall()


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_is_the_same_run_whether_stopped_or_not_and_whatever_was_released(
    name: str, text: bool, bases: dict[str, Path], tmp_path: Path
) -> None:
    data = load_captioned(toyset.folder(tmp_path / "data"))
    settings = TrainSettings(
        steps=4,
        learning_rate=1e-2,
        batch_size=2,
        resolution=tiny.size(tiny.pipeline(name)),
        random_flip=True,
        caption_dropout=0.3,
    )

    def run(family: Family, folder: Path | None = None) -> Trainer:
        method = fitted(Lora(rank=2, text_encoder=text), name)
        return Trainer(family, method, settings, data, folder=folder, say=lambda _: None, progress=False)

    whole = run(FAMILIES[name].open(bases[name]))
    whole.fit()
    gone = {part for part in ("vae", *whole.family.text_encoders) if whole.family.part(part).device.type == "meta"}
    learns = text and bool(whole.family.trains_text_encoders)
    assert not gone & set(whole.family.text_encoders) if learns else gone == {"vae", *whole.family.text_encoders}
    first = run(FAMILIES[name](tiny.pipeline(name)), tmp_path / "run")
    first.step()
    first.save()
    second = run(FAMILIES[name].open(bases[name]), tmp_path / "run")
    assert second.resume() == 1
    second.fit()
    assert second.losses == whole.losses and len(whole.losses) == 4
    assert all(torch.equal(value, second.weights[key]) for key, value in whole.weights.items())


# Half precision


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")  # SDXL's own pipeline says so to itself
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_half_precision_base_is_trained_in_float32(name: str, dtype: torch.dtype, bases: dict[str, Path]) -> None:
    family = FAMILIES[name].open(bases[name], dtype=dtype)
    assert {p.dtype for part in (family.denoiser, "vae") for p in family.part(part).parameters()} == {dtype}
    spoken = {p.dtype for part in family.text_encoders for p in family.part(part).parameters()}
    assert dtype in spoken <= {dtype, torch.float32}  # T5 keeps some layers whole in float16: it would overflow
    told = losses(family, Lora(rank=4), 12, dtype)
    assert all(loss == loss for loss in told) and told[-1] < told[0]
    assert family.part("vae").dtype == dtype and picture(family.pipe).isfinite().all()


@pytest.mark.parametrize("upcast", [True, False])
def test_a_vae_that_overflows_in_float16_encodes_in_float32(upcast: bool, bases: dict[str, Path]) -> None:
    """SDXL's does, and its config says so; the one that was mended says the opposite."""
    whole, half = FAMILIES["sdxl"].open(bases["sdxl"]), FAMILIES["sdxl"].open(bases["sdxl"], dtype=torch.float16)
    for family in (whole, half):
        family.pipe.vae.register_to_config(force_upcast=upcast)
        family.pipe.vae.encoder.conv_in.weight.mul_(200_000)  # the norm after it makes it small again
    pixels = torch.rand(1, 3, tiny.HEIGHT, tiny.WIDTH, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.autocast("cpu", torch.float16):  # nor may a loop around it turn it into half precision
        told = half.posterior(pixels)
    assert told.mean_BCHW.dtype == torch.float32 and half.pipe.vae.dtype == torch.float16
    assert bool(told.mean_BCHW.isfinite().all()) == upcast
    if upcast:
        torch.testing.assert_close(told.mean_BCHW, whole.posterior(pixels).mean_BCHW, rtol=0.02, atol=0.02)


# Fewer bits


def test_fewer_bits_that_cannot_be_had_are_refused_in_a_line(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(kind: str) -> str:
        with pytest.raises(KitError) as told:
            FAMILIES["sd1"].open(bases["sd1"], quantize=kind)
        assert told.value.exit_code == 2
        return told.value.line()

    assert "unknown quantization 'int7'; did you mean 'int8'?" in refused("int7")
    if not torch.cuda.is_available():
        monkeypatch.setitem(quantized.LIBRARIES, "nf4", "torch")  # as if it were installed
        assert "training: quantize: nf4 needs a GPU, and there is none here." in refused("nf4")
    monkeypatch.setitem(quantized.LIBRARIES, "int8", "a_library_nobody_has")
    line = refused("int8")
    assert "int8 needs a_library_nobody_has, which is not installed" in line and "hf-diffusion-kit[int8]" in line


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_lora_on_an_int8_base_trains_and_round_trips(
    name: str, dtype: torch.dtype, bases: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("torchao", exc_type=ImportError)
    family = FAMILIES[name].open(bases[name], dtype=dtype, quantize="int8")
    kinds = {type(m.weight).__name__ for m in family.model.modules() if isinstance(m, torch.nn.Linear)}
    assert kinds == {"Int8Tensor"} and family.dtype == dtype and family.quantize == "int8"
    told = losses(family, Lora(rank=4), 12, dtype if dtype != torch.float32 else None)
    assert told[-1] < told[0]
    FORMATS["diffusers-lora"].write(family, tmp_path)
    FORMATS["diffusers-lora"].as_read(family)
    expected, plain = picture(family.pipe), picture(FAMILIES[name].pipeline(bases[name], dtype=dtype))
    same = FAMILIES[name].pipeline(bases[name], dtype=dtype, quantize="int8")
    whole = FAMILIES[name].pipeline(bases[name], dtype=dtype)
    for pipe in (same, whole):
        pipe.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors", local_files_only=True)
    assert torch.equal(picture(same), expected)
    rounding, learnt = (picture(whole) - expected).abs().mean(), (plain - expected).abs().mean()
    assert rounding < learnt
