"""A warm process that forks runs of the toy and ends them in every way: libraries are loaded once, and a child costs what a fork costs.

`python killed.py EXPERIMENT FOLDER` prints what happened as JSON; tests/test_kills.py says what should have.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import conftest  # noqa: F401  (no network, a home of its own, one thread)
import tiny
import toyset
from fragile import Fragile
from hf_diffusion_kit.errors import KitError
from hf_diffusion_kit.job import train
from hf_diffusion_kit.methods import Lora
from hf_diffusion_kit.recipe import Recipe
from hf_diffusion_kit.training import checkpoint as checkpoints
from hf_diffusion_kit.training.trainer import Trainer
from toyruns import Case, Pictures, state, trainer

SEED = 20260101
CASE = Case(
    Lora(rank=2, dropout=0.1, targets=("attn1.to_q", "attn2.to_v")),
    {"steps": 25, "batch_size": 1, "random_flip": True, "ema_decay": 0.9, "checkpointing_steps": 1, "checkpoints_total_limit": 2},
)
Told = Callable[[object], None]


def forked(work: Callable[[Told], None]) -> tuple[int, int]:
    """(process, pipe) of a child; what it tells comes out of the pipe, a line each."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    os.close(reading)
    code = 99
    try:
        work(lambda word: os.write(writing, f"{word}\n".encode()) and None)
        code = 0
    except KitError as error:
        os.write(writing, f"{error.line()}\n".encode())
        code = error.exit_code
    except BaseException:  # noqa: BLE001 (of a child; there is nobody above it)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, pipe: int) -> tuple[int, list[str]]:
    """(exit code, or minus the signal; all that it told)."""
    with os.fdopen(pipe) as lines:
        told = lines.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


def whole(work: Callable[[Told], None]) -> list[str]:
    """What a child tells that must come to its end."""
    code, told = ended(*forked(work))
    assert code == 0, (code, told)
    return told


def digest(run: Trainer) -> str:
    return hashlib.sha256(repr(sorted(state(run).items())).encode()).hexdigest()


def made(folder: Path, case: Case = CASE) -> Trainer:
    """A new run, all pictures encoded; only children take its steps."""
    run = trainer(case, Pictures.made(folder / "pictures"))
    run.fill()
    return run


def session(run: Trainer, folder: Path, tell: Told) -> None:
    """In a child: goes on to the end, and tells of each step when it is taken and when it is saved."""
    save = run.save

    def saving() -> Path | None:
        path = save()
        tell(f"saved {run.done}")
        return path

    run.folder, run.save = folder, saving  # type: ignore[method-assign]
    begun = run.resume()
    tell(f"resumed {begun}")
    run.after_step.append(lambda run: tell(f"step {run.done}"))
    run.fit()
    tell(f"digest {digest(run)}")


def numbers(told: list[str], word: str) -> list[int]:
    return [int(line.split()[1]) for line in told if line.startswith(f"{word} ")]


def last(told: list[str], word: str) -> str:
    return next(line.split()[1] for line in reversed(told) if line.startswith(f"{word} "))


def kills(home: Path, count: int) -> dict[str, Any]:
    """SIGKILL at random moments, several in the life of a run, until `count` have hit."""
    draw, run = random.Random(SEED), made(home)
    unbroken = last(whole(partial(session, run, home / "whole")), "digest")
    hit, runs, in_a_save, lost, unusable, different, lives = 0, 0, 0, 0, 0, 0, Counter[int]()
    begun = time.monotonic()
    while hit < count:
        folder, finished = home / f"run-{runs}", 0
        for life in range(1, 1000):
            pid, pipe = forked(partial(session, run, folder))
            time.sleep(draw.uniform(0.02, 0.5))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            code, told = ended(pid, pipe)
            finished = max([finished, *numbers(told, "saved")])
            if code == 0:
                lives[life] += 1
                different += last(told, "digest") != unbroken
                break
            assert code == -signal.SIGKILL, (code, told)
            hit += 1
            in_a_save += any(folder.glob(f"{checkpoints.HALF}*"))
            try:
                found = checkpoints.newest(folder, lambda _: None)
                lost += (found.step if found else 0) < finished
            except KitError:
                unusable += 1
        left = [path.name for path in folder.iterdir() if not checkpoints.NAME.fullmatch(path.name)]
        unusable += bool(left) or checkpoints.steps_in(folder) != [24, 25]
        shutil.rmtree(folder)
        runs += 1
    told = {"kills": hit, "runs": runs, "in a save": in_a_save, "lost": lost, "unusable": unusable, "different": different}
    return {**told, "most lives": max(lives), "seconds": round(time.monotonic() - begun, 1)}


def writes(home: Path, _: int) -> dict[str, Any]:
    """SIGKILL, and a power cut, at every creation, half and end of a write, sync, rename and removal of a save."""
    run = made(home, replace(CASE, changes={**CASE.changes, "steps": 5}))
    unbroken = last(whole(partial(session, run, home / "whole")), "digest")

    def begin(tell: Told) -> None:
        run.folder = home / "begun"
        for _ in range(2):
            run.step()
            run.save()

    whole(begin)

    def third(folder: Path, at: int, power_cut: bool, tell: Told) -> None:
        run.folder = folder
        assert run.resume() == 2
        run.step()
        with pytest.MonkeyPatch.context() as patch:
            end: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            disk = Fragile(patch, at, end, power_cut=power_cut)
            run.save()
        tell(f"places {len(disk.told)}")

    shutil.copytree(home / "begun", home / "counted")
    places = int(last(whole(partial(third, home / "counted", 0, False)), "places"))
    bad, stood = [], Counter[int]()
    for power_cut in (False, True):
        for at in range(1, places + 1):
            folder = shutil.copytree(home / "begun", home / f"{at}-{power_cut}")
            code, _told = ended(*forked(partial(third, folder, at, power_cut)))
            told = whole(partial(session, run, folder))
            stood[numbers(told, "resumed")[0]] += 1
            if code != -signal.SIGKILL or last(told, "digest") != unbroken or checkpoints.steps_in(folder) != [4, 5]:
                bad.append((at, power_cut, code))
            shutil.rmtree(folder)
    return {"places": places, "deaths": 2 * places, "bad": bad, "went on from": dict(stood)}


def signals(home: Path, count: int) -> dict[str, Any]:
    """SIGTERM and SIGINT at random moments of the steps."""
    draw, run = random.Random(SEED), made(home)
    unbroken = last(whole(partial(session, run, home / "whole")), "digest")
    right, late, different, codes = 0, 0, 0, Counter[int]()
    for k in range(count):
        folder, number = home / f"run-{k}", draw.choice((signal.SIGTERM, signal.SIGINT))
        pid, pipe = forked(partial(session, run, folder))
        while not checkpoints.steps_in(folder):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.4))
        os.kill(pid, number)
        code, told = ended(pid, pipe)
        codes[code] += 1
        found = checkpoints.newest(folder, lambda _: None)
        right += code == 128 + number and "saved as checkpoint" in told[-1]
        late += found is None or found.step != numbers(told, "step")[-1]
        different += last(whole(partial(session, run, folder)), "digest") != unbroken
        shutil.rmtree(folder)
    return {"signals": count, "right": right, "not the last step": late, "different": different, "codes": dict(codes)}


# Disks that are full: in a mount namespace of its own (`unshare -rm`), where a small one can be mounted by anybody


def recipe(base: Path, quiet: bool = False) -> Recipe:
    """`quiet`: nothing but log and checkpoints is written while it runs."""
    size = (tiny.HEIGHT, tiny.WIDTH)
    training = {"steps": 6, "learning_rate": 1e-2, "resolution": size, "checkpointing_steps": 2, "sample_pictures": 1}
    sections: dict[str, Any] = {
        "base": {"id": str(base), "license": "mit"},
        "method": {"name": "lora", "rank": 64},  # so that checkpoints take more than pictures
        "training": {**training, **({"report_to": ["none"], "sample_steps": 0, "checkpointing_steps": 1} if quiet else {})},
        "gallery": {"pictures": 1, "steps": 1, "guidance": 1.0},
    }
    return Recipe.of(sections, where="test")


def disks(home: Path, count: int) -> dict[str, Any]:
    """A fifth of the disks are too small from the start, each another size; the others fill up after some step, up to some bytes."""
    tiny.pipeline().save_pretrained(home / "toy-base")
    data, disk = toyset.folder(home / "data", count=3), home / "disk"
    disk.mkdir()

    def mounted(size: int) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=1m", "tmpfs", str(disk)], check=True)

    def attempt(tell: Told, *, resume: bool = False, full_after: int = -1, left: int = 0, quiet: bool = False) -> None:
        step, heard = Trainer.step, []

        def filling(run: Trainer) -> float:
            if run.done == full_after:
                room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                (disk / "filler").write_bytes(b"\0" * max(0, room - left))
            return step(run)

        Trainer.step = filling  # type: ignore[method-assign]
        given = {"resume": resume, "say": heard.append, "progress": False}
        run = train(recipe(home / "toy-base", quiet), disk / "run", data=str(data), **given)
        tell(f"weights {run.record.weights[0].sha256} {run.record.losses}")

    mounted(2**26)
    unbroken = whole(attempt)
    used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
    subprocess.run(["umount", str(disk)], check=True)
    few = count // 5
    small = [(used * (k + 1) // (few + 1) // 4096 * 4096, -1, 0) for k in range(few)]
    filling = [(2**26, k % 6, (0, 65_536, 262_144, 786_432, 1_100_000)[k % 5]) for k in range(count - len(small))]
    where, bad, passed = Counter[str](), [], 0
    for number, (size, full_after, left) in enumerate(small + filling):
        mounted(size)
        quiet, wrong = number % 2 == 1, []
        code, told = ended(*forked(partial(attempt, full_after=full_after, left=left, quiet=quiet)))
        line = told[-1] if told else ""
        before = checkpoints.steps_in(disk / "run")
        if code == 0:  # what was left of the run had room enough
            passed += 1
        elif code == 5 and len(told) == 1 and line.startswith("error[E-DISK-03]") and "bytes are free" in line:
            where[f"{kind(line)}, after checkpoint {max(before, default=0)}"] += 1
        else:
            wrong.append(f"ended with {code}: {told}")
        if any(checkpoints.broken(disk / "run" / f"checkpoint-{step:06d}") for step in before):
            wrong.append("a checkpoint is broken")
        (disk / "filler").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = whole(partial(attempt, resume=(disk / "run" / "run.toml").is_file(), quiet=quiet))
        if again != unbroken:
            wrong.append(f"went on otherwise: {again}")
        if parts := [path.name for path in (disk / "run").rglob("*") if path.suffix == ".part" or path.name.startswith(".tmp")]:
            wrong.append(f"left behind: {parts}")
        bad += [(size, full_after, left, quiet, what) for what in wrong]
        subprocess.run(["umount", str(disk)], check=True)
    return {"disks": count, "full": sum(where.values()), "enough": passed, "bad": bad, "where": dict(where)}


def kind(line: str) -> str:
    for sign in ("the disk is too full", "the checkpoint of step", "log.jsonl"):
        if sign in line:
            return sign
    return "something else"


EXPERIMENTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {f.__name__: f for f in (kills, writes, signals, disks)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(EXPERIMENTS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
