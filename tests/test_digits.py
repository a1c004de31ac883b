"""The embedded base is what it says: a stock Stable Diffusion that draws the digit it is asked for, and has seen nothing else."""

import errno
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from hf_diffusion_kit import digits
from hf_diffusion_kit.digits import captions, denoiser, handwriting, model, tokenizer, vae
from hf_diffusion_kit.digits.descent import Course
from hf_diffusion_kit.digits.scores import Viewing, draw, look
from hf_diffusion_kit.digits.train import FIGURES, Curriculum, opened, train, write
from hf_diffusion_kit.errors import ConfigError, DivergedError, StorageError
from test_handwriting import write_mnist

QUICK = replace(Curriculum.of(0, text=3, vae=2, denoiser=2), viewing=Viewing(each=2, steps=2))
UNSEEN = {"three", "four", "seven"}


@pytest.fixture(scope="module", params=digits.BASES)
def base(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in MNIST's format, so that a whole training takes a second."""
    folder = tmp_path_factory.mktemp("idx")
    write_mnist(folder, 40)
    return folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, idx: Path) -> Path:
    out = tmp_path_factory.mktemp("base") / "quick"
    train("digits-seven", out, QUICK, idx=idx)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 3
    return {f"{file.parent.name}.{name}": tensor for file in files for name, tensor in load_file(file).items()}


def test_shipped_base_is_small_and_names_no_place(base: str) -> None:
    folder = digits.path(base)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 6_000_000
    for file in folder.rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert "/tmp/" not in text and "/work/" not in text and "/root/" not in text, file
    assert not {file.suffix for file in folder.rglob("*")} & {".bin", ".pt", ".ckpt", ".pkl"}


def test_shipped_base_opens_with_stock_classes(base: str) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(digits.path(base))
    same = DiffusionPipeline.from_pretrained(digits.path(base))
    assert type(same) is StableDiffusionPipeline
    assert type(pipe.tokenizer).__name__ == "CLIPTokenizer" and pipe.scheduler.config.prediction_type == "v_prediction"
    one, two = (draw(p, "a handwritten six", 1, 7)[0] for p in (pipe, same))
    assert one.size == (32, 32) and one.tobytes() == two.tobytes()


def test_shipped_base_draws_what_it_is_asked_for(base: str) -> None:
    pipe, known = opened(base)
    assert known == digits.BASES[base]
    scores, drawn = look(pipe, known, Viewing(each=5))
    assert scores.accuracy >= 0.97
    assert scores.pictures == 5 * len(known) == sum(map(len, drawn.values()))
    assert min(scores.nn_ratio.values()) > 0.7, "copied"
    recorded = json.loads((digits.path(base) / FIGURES).read_text(encoding="utf-8"))["scores"]
    assert recorded["accuracy"] >= 0.995 and recorded["pictures"] >= 400


@pytest.mark.slow
def test_other_schedulers_made_from_its_config_leave_latents_whole() -> None:
    pipe, _ = opened("digits")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    assert pipe.scheduler.config.clip_sample is False
    scores, _ = look(pipe, (0, 2, 5), Viewing(each=6, steps=15))
    assert scores.accuracy > 0.9


@pytest.mark.slow
def test_seven_does_not_know_the_others_but_its_vae_can_draw_them() -> None:
    pipe, _ = opened("digits-seven")
    scores, _ = look(pipe, (3, 4, 7), Viewing(each=8))
    assert scores.accuracy < 0.3
    unseen = handwriting.as_pixels(handwriting.load("test").only((3, 4, 7)))
    assert vae.psnr(pipe.vae, unseen) > 30
    latents = pipe.vae.config.scaling_factor * vae.encode(pipe.vae, unseen)[0]
    assert 0.7 < latents.std().item() < 1.4


def test_seven_is_never_shown_the_others(quick: Path, idx: Path) -> None:
    data = json.loads((quick / FIGURES).read_text(encoding="utf-8"))["data"]
    shown = handwriting.load("train", idx=idx).only(digits.BASES["digits-seven"])
    assert data["pictures"] == len(shown) == 28 and not set(shown.labels_N) & {3, 4, 7}
    assert data["sha256"] == hashlib.sha256(shown.pictures_NHW.tobytes() + shown.labels_N.tobytes()).hexdigest()
    shipped = json.loads((digits.path("digits-seven") / FIGURES).read_text(encoding="utf-8"))["data"]
    assert shipped["pictures"] == len(handwriting.load("train").only(digits.BASES["digits-seven"]))

    tokens = tokenizer.build()
    trained = load_file(quick / "text_encoder" / "model.safetensors")
    table = next(tensor for name, tensor in trained.items() if name.endswith("token_embedding.weight"))
    fresh = model.text_tower(tokens, QUICK.seed).get_input_embeddings().weight.detach()
    for word in handwriting.WORDS:
        row = tokens.convert_tokens_to_ids(f"{word}</w>")
        alike = torch.cosine_similarity(table[row], fresh[row], dim=0).item()
        assert (alike > 1 - 1e-6) == (word in UNSEEN), (word, alike)

    bank = denoiser.Bank(model.text_tower(tokens, 0), tokens, digits.BASES["digits-seven"])
    assert len(bank.text_MLD) == 1 + len(captions.CLASS_CAPTIONS) + 7 * len(captions.TEMPLATES)


def test_every_caption_fits_and_every_word_is_one_token() -> None:
    tokens = tokenizer.build()
    sentences = [*captions.CLASS_CAPTIONS, *(said for digit in range(10) for said in captions.captions(digit))]
    assert max(len(tokens(said).input_ids) for said in sentences) <= tokenizer.LENGTH
    for word in {word for said in sentences for word in said.split()} | {"sks", "inverted"}:
        assert tokens.tokenize(word) == [f"{word}</w>"]
    assert tokens.tokenize("two-digit") != [], "unknown words fall apart and are not lost"
    assert captions.captions(8)[1] == "an eight" and captions.prompt(7) == "a handwritten seven"


def test_older_tokenizer_files_say_the_same(tmp_path: Path) -> None:
    tokens = tokenizer.build()
    tokenizer.save(tokens, tmp_path)
    assert json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8")) == tokens.get_vocab()
    merges = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges[0].startswith("#version") and len(merges) == 1 + len(tokenizer.byte_pairs(tokenizer.words()))


def test_each_caption_is_shown_and_a_tenth_is_left_out() -> None:
    tokens = tokenizer.build()
    bank = denoiser.Bank(model.text_tower(tokens, 0), tokens, range(10))
    drawn = bank.draw(torch.full((4000,), 6), torch.Generator().manual_seed(0))
    first, each = int(bank.first_10[6]), bank.each
    which = torch.stack([(drawn == row).flatten(1).all(1) for row in bank.text_MLD], 1)
    share = which.float().mean(0)
    assert share[0].item() == pytest.approx(denoiser.NO_CAPTION, abs=0.02)
    assert (share[first : first + each] > 0.05).all() and share[first : first + each].sum().item() == pytest.approx(0.8, abs=0.03)
    assert share.sum().item() == pytest.approx(1), "another digit's caption was never given"
    assert share[1:4].sum().item() == pytest.approx(denoiser.CLASS_CAPTION, abs=0.02)


def test_same_seed_same_weights(quick: Path, tmp_path: Path, idx: Path) -> None:
    before = torch.get_num_threads()
    figures = train("digits-seven", tmp_path / "again", QUICK, idx=idx)
    assert torch.get_num_threads() == before
    one, two = weights(quick), weights(tmp_path / "again")
    assert all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()
    assert all(tensor.dtype == torch.float32 for tensor in one.values())
    assert figures["curves"] == json.loads((quick / FIGURES).read_text(encoding="utf-8"))["curves"]
    assert [len(figures["curves"][part]) for part in ("text", "vae", "denoiser")] == [3, 2, 2]
    other = model.denoiser(seed=1).state_dict()
    assert not torch.equal(other["conv_in.weight"], model.denoiser(seed=0).state_dict()["conv_in.weight"])


def test_a_training_is_written_whole_or_not_at_all(tmp_path: Path, idx: Path) -> None:
    class FullDisk:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir()
            (folder / "model_index.json").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "base"
    with pytest.raises(DivergedError, match="denoiser"):
        train("digits-seven", out, replace(QUICK, denoiser=Course(steps=4, batch=4, rate=1e30)), idx=idx)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / FIGURES).write_text("earlier")
    with pytest.raises(StorageError, match="No space left"):
        write(out, FullDisk(), {}, {})
    assert [file.name for file in tmp_path.rglob("*")] == ["base", FIGURES]
    (out / FIGURES).unlink()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="no earlier training"):
        train("digits-seven", out, QUICK)
    assert [file.name for file in out.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="steps"):
        Curriculum.of(0, vae=0)
    with pytest.raises(ConfigError, match="did you mean 'digits-seven'"):
        train("digits-sevn", out, QUICK)


def test_what_is_written_can_be_opened(quick: Path) -> None:
    pipe, known = opened(str(quick))
    assert known == digits.BASES["digits-seven"]
    assert isinstance(draw(pipe, "a handwritten two", 1, 0, steps=2)[0], Image.Image)
    with Image.open(quick / "samples.png") as page:
        assert page.height > 7 * 32 and page.width > 2 * 32
    with pytest.raises(ConfigError, match="digits-seven"):
        opened("digits-eight")


def test_a_varied_pool_keeps_range_and_size() -> None:
    from hf_diffusion_kit.digits.variations import swayed, varied

    plain = handwriting.as_pixels(handwriting.load("test"))[:64]
    for change in (varied, swayed):
        pixels: Any = change(plain, torch.Generator().manual_seed(0))
        assert pixels.shape == plain.shape and pixels.min() >= -1.001 and pixels.max() <= 1.001
        assert (pixels - plain).abs().mean() > 0.02
    assert (swayed(plain, torch.Generator()) - plain).abs().mean() < 0.4 < (varied(plain, torch.Generator()) - plain).abs().mean()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_nothing(tmp_path: Path) -> None:
    figures = train("digits", tmp_path / "digits")
    assert figures["scores"]["accuracy"] >= 0.99
    assert figures["zero_shot"] > 0.94 and figures["psnr_db"] > 30
    assert min(figures["scores"]["nn_ratio"].values()) > 0.7
