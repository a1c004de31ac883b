"""An answer is the same bits whether it was made, kept or read; nothing half written is ever believed; a full disk ends no run."""

import errno
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from hf_diffusion_kit.data.pixels import Crop
from hf_diffusion_kit.training import keys
from hf_diffusion_kit.training.cache import Cache, encoded_folder, key_of

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool)


def answer(n: int, side: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    mean = torch.randn(1, 4, side, side, generator=generator)
    return {"mean": mean, "std": mean.abs().to(DTYPES[n % len(DTYPES)])}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Names, types, shapes and bits."""
    return save({k: v.detach().contiguous() for k, v in a.items()}) == save({k: v.detach().contiguous() for k, v in b.items()})


def never() -> dict[str, Tensor]:
    raise AssertionError("asked again")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.safetensors"))


def counts(cache: Cache) -> tuple[int, int, int]:
    return cache.made, cache.found, cache.mended


def test_what_is_read_back_is_what_was_made_bit_for_bit(tmp_path: Path) -> None:
    odd = {
        "nan": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "strided": torch.arange(60.0).reshape(1, 3, 4, 5).to(memory_format=torch.channels_last),
        "part": torch.arange(1000)[500:502],
        "wide": torch.ones(1).expand(7),
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(3.5, requires_grad=True),
    }
    first = Cache(tmp_path)
    made = [first.get(("n", n), lambda n=n: answer(n)) for n in range(12)] + [first.get(("odd",), lambda: odd)]
    second = Cache(tmp_path)
    read = [second.get(("n", n), never) for n in range(12)] + [second.get(("odd",), never)]
    assert counts(first) == (13, 0, 0) and counts(second) == (0, 13, 0) and len(second) == 13
    for a, b in zip(made, read, strict=True):
        assert same(a, b)
        assert all(a[name].stride() == b[name].stride() and not a[name].requires_grad for name in a)
    assert all(torch.equal(made[-1][name], odd[name]) for name in ("strided", "part", "wide", "empty", "one"))
    assert first.bytes == second.bytes == sum(t.nbytes for tensors in made for t in tensors.values())
    assert second.get(("n", 3), never) is read[3]
    assert second.lines() == ["13 of 13 encoded pictures and captions were on disk already"]


def test_one_file_an_item_that_anybody_can_open(tmp_path: Path) -> None:
    Cache(tmp_path).get(("picture", 1), lambda: answer(0))
    (path,) = files(tmp_path)
    assert path == tmp_path / key_of(("picture", 1))[:2] / f"{key_of(('picture', 1))}.safetensors"
    assert same(load_file(path), answer(0)) and not list((tmp_path / "parts").iterdir())
    assert path.stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = Cache(keep_bytes=1)  # there is nowhere to read it from again, so it is kept
    assert same(cache.get(("a",), lambda: answer(1)), cache.get(("a",), never))
    assert counts(cache) == (1, 0, 0) and cache.lines() == [] and not list(tmp_path.iterdir())


# Keys


def test_a_key_tells_apart_whatever_differs() -> None:
    parts: list[tuple[Any, ...]] = [
        (1, 23),
        (12, 3),
        ("1", 23),
        (1.0, 23),
        (True, 23),
        ((1, 23),),
        (1, (23,)),
        ("1,23",),
        (None, 23),
        ("\ud800", 1),
        ("é",),
        ("e\u0301",),
        ("",),
        (),
    ]
    assert len({key_of(one) for one in parts}) == len(parts)
    assert key_of((1, "a", (0.5, False))) == key_of((1, "a", (0.5, False)))
    with pytest.raises(TypeError):
        key_of((object(),))


def test_a_key_holds_all_that_can_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {"family": "sd1", "base": "a", "dtype": torch.float32, "device": torch.device("cpu")}
    crop = Crop((40, 60), (16, 24), (0.5, 0.5))
    origin = keys.origin(**told)
    found = {key_of(keys.picture_key(origin, "s", crop))}
    for change in ({"family": "sdxl"}, {"base": "b"}, {"dtype": torch.bfloat16}, {"device": torch.device("cuda")}):
        found.add(key_of(keys.picture_key(keys.origin(**(told | change)), "s", crop)))
    for other in (
        Crop((40, 60), (24, 16), (0.5, 0.5)),
        Crop((40, 60), (16, 16), (0.5, 1.0)),
        Crop((40, 60), (16, 16), (0.5, 0.0)),
        Crop((40, 60), (16, 24), (0.5, 0.5), True),
    ):
        found.add(key_of(keys.picture_key(origin, "s", other)))
    found.add(key_of(keys.picture_key(origin, "t", crop)))
    found |= {key_of(keys.caption_key(origin, text, geometry)) for text in ("a", "b") for geometry in (None, crop.geometry)}
    found |= {key_of(keys.mask_key("s", crop, divisor)) for divisor in (4, 8)} | {
        key_of(keys.place_key("smart 1", "s", (16, 24)))
    }
    monkeypatch.setattr(keys, "CODE", keys.CODE + 1)
    found.add(key_of(keys.picture_key(keys.origin(**told), "s", crop)))
    monkeypatch.undo()
    monkeypatch.setattr(keys, "version", lambda name: "9.9" if name == "torch" else "1")
    found.add(key_of(keys.picture_key(keys.origin(**told), "s", crop)))
    assert len(found) == 19
    # what is the same crop has the same key, by whatever place it was told
    assert keys.picture_key(origin, "s", Crop((32, 48), (16, 24), (0.0, 0.0))) == keys.picture_key(
        origin, "s", Crop((32, 48), (16, 24), (1.0, 0.5))
    )


def test_the_folder_lies_below_hf_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert encoded_folder("0123456789abcdef0123") == tmp_path / "hf_diffusion_kit" / "encoded" / "0123456789abcdef"


# Damage


def test_a_damaged_file_is_made_again_and_counted(tmp_path: Path) -> None:
    Cache(tmp_path).get(("a",), lambda: answer(1))
    (path,) = files(tmp_path)
    sound = path.read_bytes()
    draw = random.Random(0)
    bad = [b"", b"\0" * len(sound), sound[:7], sound[: len(sound) // 2], sound[:-1], sound + b"\0", b"<html>", b"\xff" * 99]
    bad += [b"\x02\0\0\0\0\0\0\0[]", b'\x13\0\0\0\0\0\0\0{"__metadata__":"x"}']
    for _ in range(200):
        at = draw.randrange(len(sound))
        bad.append(sound[:at] + bytes([sound[at] ^ 1 << draw.randrange(8)]) + sound[at + 1 :])
    harmless = 0
    for content in bad:
        path.write_bytes(content)
        cache = Cache(tmp_path)
        assert same(cache.get(("a",), lambda: answer(1)), answer(1))
        harmless += cache.mended == 0
        assert counts(cache) == ((1, 0, 1) if cache.mended else (0, 1, 0))
        assert not cache.mended or path.read_bytes() == sound
        path.write_bytes(sound)
    assert harmless <= 4  # a space at the header's end, which means nothing
    path.write_bytes(sound[:-1])
    mending = Cache(tmp_path)
    mending.get(("a",), lambda: answer(1))
    assert mending.lines()[-1] == "damaged files of the cache, made again: 1"


def test_an_item_under_another_s_name_is_not_believed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for n in (1, 2):
        cache.get((n,), lambda n=n: answer(n))
    one, two = files(tmp_path)
    two.write_bytes(one.read_bytes())
    again = Cache(tmp_path)
    assert [same(again.get((n,), lambda n=n: answer(n)), answer(n)) for n in (1, 2)] == [True, True]
    assert counts(again) == (1, 1, 1)
    save_file(answer(1), one)  # a safetensors file without a digest
    save_file(answer(1), two)
    strange = Cache(tmp_path)
    assert [same(strange.get((n,), lambda n=n: answer(n)), answer(n)) for n in (1, 2)] == [True, True] and strange.mended == 2


def test_what_killed_processes_left_is_swept_a_day_later(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, age in (("old", 90_000), ("new", 60)):
        (tmp_path / "parts" / name).write_bytes(b"half")
        os.utime(tmp_path / "parts" / name, (time.time() - age,) * 2)
    Cache(tmp_path)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["new"]


# Bounds


def test_beyond_its_bound_memory_holds_no_more_and_the_rest_is_read_again(tmp_path: Path) -> None:
    size = sum(t.nbytes for t in answer(0).values())
    cache = Cache(tmp_path, keep_bytes=3 * size)
    for _ in range(3):
        for n in range(0, 60, 6):  # one dtype, so one size
            assert same(cache.get((n,), lambda n=n: answer(n)), answer(n))
    assert counts(cache) == (10, 0, 0) and cache.bytes == 3 * size and len(cache) == 10
    other = Cache(tmp_path, keep_bytes=0)
    for _ in range(2):
        assert [same(other.get((n,), never), answer(n)) for n in range(0, 60, 6)] == [True] * 10
    assert counts(other) == (0, 10, 0) and other.bytes == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["write_bytes", "replace", "mkdir"])
def test_a_full_disk_is_said_once_and_ends_nothing(
    number: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cache = Cache(tmp_path, keep_bytes=1, say=said.append)
    real = getattr(Path, where)
    calls = iter(range(99))

    def fails(self: Path, *args: Any, **options: Any) -> Any:
        if tmp_path in self.parents and next(calls) >= 4:
            if where == "write_bytes":
                real(self, args[0][:9])  # some of it
            raise OSError(number, os.strerror(number), str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, where, fails)
    for _ in range(2):
        for n in range(10):
            assert same(cache.get((n,), lambda n=n: answer(n)), answer(n))
    monkeypatch.undo()
    assert cache.made == 10 and len(said) == 1 and os.strerror(number) in said[0] and "memory only" in said[0]
    assert cache.bytes > 1  # what could not be written is kept, whatever the bound
    assert 1 <= len(files(tmp_path)) < 10 and not [*(tmp_path / "parts").glob("*")]
    after = Cache(tmp_path)
    for n in range(10):
        assert same(after.get((n,), lambda n=n: answer(n)), answer(n))
    assert after.mended == 0 and after.made + after.found == 10


def test_a_folder_that_is_none_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    said: list[str] = []
    cache = Cache(tmp_path / "file", say=said.append)
    assert same(cache.get((1,), lambda: answer(1)), answer(1)) and len(said) == 1


# Two processes at once

KEYS = 200


def _fill(folder: Path, rank: int, ready: Any, told: Any) -> None:
    """First all keys, the other process too; then every second one."""
    torch.set_num_threads(1)
    for name, numbers in (("all", random.Random(0).sample(range(KEYS), KEYS)), ("shared", list(range(rank, KEYS, 2)))):
        cache = Cache(folder / name)
        ready.wait()
        wrong = [n for n in numbers if not same(cache.get((n,), lambda n=n: answer(n, 32)), answer(n, 32))]
        told.put((name, cache.made, cache.found, cache.mended, len(wrong)))


def test_two_processes_fill_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, told = context.Barrier(2), context.Queue()
    running = [context.Process(target=_fill, args=(tmp_path, rank, ready, told)) for rank in range(2)]
    for process in running:
        process.start()
    results = [told.get(timeout=90) for _ in range(4)]
    for process in running:
        process.join(60)
    assert all(process.exitcode == 0 for process in running)
    assert all(mended == wrong == 0 for *_, mended, wrong in results)
    assert all(made + found == KEYS for name, made, found, *_ in results if name == "all")
    assert [made for name, made, *_ in results if name == "shared"] == [KEYS // 2] * 2  # each entry once
    for name in ("all", "shared"):
        assert len(files(tmp_path / name)) == KEYS and not list((tmp_path / name / "parts").iterdir())
        after = Cache(tmp_path / name)
        assert all(same(after.get((n,), never), answer(n, 32)) for n in range(KEYS)) and after.found == KEYS


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    broken: Callable[[], dict[str, Tensor]] = never
    with pytest.raises(AssertionError):
        cache.get((1,), broken)
    assert counts(cache) == (0, 0, 0) and files(tmp_path) == []
    assert same(cache.get((1,), lambda: answer(1)), answer(1))
