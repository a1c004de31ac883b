import argparse
from collections.abc import Callable
from typing import Any

HELP = """The embedded base, a small Stable Diffusion of handwritten digits.

  hfdk digits train --base digits-seven --out out/digits-seven    train it again from nothing, about five minutes on a CPU
  hfdk digits score --base digits-seven                           let an independent classifier judge what it draws
  hfdk digits coco --digits 4 --out out/coco-four                 real handwriting as a folder in COCO's format"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="what", required=True, metavar="train | score | coco")
    train = parts.add_parser("train", help="train a base again from nothing: text tower, VAE, denoiser")
    train.add_argument("--base", default="digits", help="digits (all ten) or digits-seven (without 3, 4 and 7)")
    train.add_argument("--out", help="folder of the finished base (default: runs/<base>)")
    train.add_argument("--text-steps", type=int, help="steps of the text tower")
    train.add_argument("--vae-steps", type=int, help="steps of the VAE")
    train.add_argument("--steps", type=int, help="steps of the denoiser")
    train.add_argument("--seed", type=int, default=0, help="same seed, same weights")
    score = parts.add_parser("score", help="draw each digit and judge it")
    score.add_argument("--base", default="digits", help="digits, digits-seven, or a folder that `hfdk digits train` wrote")
    score.add_argument("--each", type=int, default=60, help="pictures of each digit")
    score.add_argument("--guidance", type=float, default=2.0)
    score.add_argument("--steps", type=int, default=10, help="solver steps")
    score.add_argument("--seed", type=int, default=1000)
    score.add_argument("--sheet", help="write a page of the pictures here, PNG")
    coco = parts.add_parser("coco", help="write real handwriting as a COCO folder")
    coco.add_argument("--out", required=True, help="folder for annotations/ and the pictures")
    coco.add_argument(
        "--digits", type=int, nargs="+", default=list(range(10)), metavar="DIGIT", help="which digits (default: all)"
    )
    coco.add_argument("--split", choices=("train", "test"), default="train", help="train2017 or val2017")
    coco.add_argument("--limit-per-digit", type=int, help="at most so many pictures of each")
    coco.add_argument("--seed", type=int, default=0, help="of the choice of pictures and captions")
    for part in (train, score, coco):
        part.add_argument("--dataset", choices=("sklearn", "mnist"), default="sklearn", help="where real handwriting comes from")
        part.add_argument("--data", help="mnist: the folder with its four IDX files, plain or .gz")
        # `--json` and `--debug` may stand before or after the word; SUPPRESS keeps the one from undoing the other.
        part.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout")
        part.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    return {"train": train, "score": score, "coco": coco}[args.what](args, say)


def train(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..digits.train import Curriculum, train

    given = {"text": args.text_steps, "vae": args.vae_steps, "denoiser": args.steps}
    curriculum = Curriculum.of(args.seed, **{part: steps for part, steps in given.items() if steps is not None})
    out = Path(args.out or f"runs/{args.base}")
    figures = train(args.base, out, curriculum, idx=idx_folder(args), progress=True, say=say)
    tell(figures["scores"], say)
    say(f"written: {out} (figures.json, samples.png)")
    return {"folder": str(out), **{key: figures[key] for key in ("base", "scores", "zero_shot", "psnr_db", "cpu_seconds")}}


def score(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from dataclasses import asdict
    from pathlib import Path

    from ..digits.scores import Viewing, look, page
    from ..digits.train import opened

    pipe, digits = opened(args.base)
    scores, drawn = look(pipe, digits, Viewing(args.each, args.guidance, args.steps, args.seed), idx=idx_folder(args))
    result = asdict(scores)
    tell(result, say)
    if args.sheet:
        Path(args.sheet).parent.mkdir(parents=True, exist_ok=True)
        page(drawn, f"{args.base}, guidance {args.guidance:g}, {args.steps} steps").save(args.sheet)
        say(f"pictures: {args.sheet}")
    return {"base": args.base, **result}


def coco(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..digits.coco import SUBSETS, write_coco

    limit, idx = args.limit_per_digit, idx_folder(args)
    folder = write_coco(Path(args.out), args.digits, split=args.split, seed=args.seed, limit_per_digit=limit, idx=idx)
    subset = SUBSETS[args.split]
    pictures = sum(1 for _ in (folder / subset).glob("*.png"))
    say(f"written: {pictures} pictures in {folder / subset}, captions and instances in {folder / 'annotations'}")
    return {"folder": str(folder), "pictures": pictures, "subset": subset}


def idx_folder(args: argparse.Namespace) -> Any:
    from pathlib import Path

    from ..errors import ConfigError

    if (args.dataset == "mnist") != (args.data is not None):
        raise ConfigError("--dataset mnist and --data DIR go together", where="hfdk digits", fix="give both or neither", case=1)
    return Path(args.data) if args.data else None


def tell(scores: dict[str, Any], say: Callable[[str], None]) -> None:
    say("digit   accuracy   distance to the nearest training picture, over real")
    for digit, share in scores["by_digit"].items():
        say(f"{digit:>5}   {share:>8.1%}   {scores['nn_ratio'][digit]:.2f}")
    say(f"mean    {scores['accuracy']:>8.1%}   of {scores['pictures']} pictures")
    say(f"the judge itself names {scores['judge_on_real']:.1%} of real held-out pictures rightly")
