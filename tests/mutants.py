"""Plants mistakes that people really make in trainers, one at a time, and sees whether the tests find them.

    python tests/mutants.py [--only height ...] [--json FILE]     each takes the tests named beside it, in a copy of the package

A mutant that no test finds is a test that is missing. Exit code 1 when one gets away.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import peft  # noqa: F401 (so are diffusers and transformers then)
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline  # noqa: F401

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    """Below hf_diffusion_kit/."""
    was: str
    becomes: str
    tests: str
    """Files that pytest is given."""
    only: str = ""
    """Its -k."""


def mutants() -> list[Mutant]:
    return [Mutant(**told) for told in tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]]


def caught(mutant: Mutant, place: Path) -> tuple[bool, str]:
    """(whether a test fails with the mistake in, the first that does)."""
    path = place / "hf_diffusion_kit" / mutant.file
    before = path.read_text(encoding="utf-8")
    if before.count(mutant.was) < 1:
        return False, "the place is not there any more"
    path.write_text(before.replace(mutant.was, mutant.becomes, 1), encoding="utf-8")
    words = [
        "-x",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        *mutant.tests.split(),
        *(["-k", mutant.only] if mutant.only else []),
    ]
    try:
        code, said = in_a_fork(words, place)
    finally:
        path.write_text(before, encoding="utf-8")
    found = [line.split()[1] for line in said.splitlines() if line.startswith("FAILED")]
    return code == 1 and bool(found), found[0].split("::")[-1] if found else f"pytest ended with {code}: {said.strip()[-200:]}"


def in_a_fork(words: list[str], place: Path) -> tuple[int, str]:
    """pytest's exit code and what it said, of the package in `place`; the libraries are there already, which saves ten seconds each."""
    said = place / "said.txt"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            out = said.open("w")
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            os.chdir(place)
            sys.path.insert(0, str(place))
            code = int(pytest.main(words))
            sys.stdout.flush()
        finally:
            os._exit(code)  # the parent's folder is not the child's to tidy up
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="those whose name holds one of these words")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    torch.set_num_threads(1)  # before anything is forked
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("hf_diffusion_kit", "tests"):
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", place)
        for mutant in mutants():
            if told.only and not any(word in mutant.name for word in told.only):
                continue
            began = time.monotonic()
            found, by = caught(mutant, place)
            rows.append({**asdict(mutant), "caught": found, "by": by, "seconds": round(time.monotonic() - began)})
            print(f"{'caught' if found else 'GOT AWAY':9}{mutant.name:55}{by}", flush=True)
    if told.json:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lost = [row for row in rows if not row["caught"]]
    print(f"{len(rows) - len(lost)} of {len(rows)} caught")
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
