import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HELP = """Work on LoRA files: of diffusers, kohya (ComfyUI, the WebUIs) or peft; a file, a folder, or a Hub id (user/name, perhaps with
/file.safetensors and @revision behind).

  hfdk lora info FILE                                what is in it: parts, layers, ranks, alphas, strength
  hfdk lora merge A:0.8 B:0.5 --out FILE             the weighted sum, exactly; --rank cuts it down afterwards
  hfdk lora resize FILE --rank 8 --out FILE          fewer ranks, the nearest there is; --dynamic sv_fro=0.95 as many as are needed
  hfdk lora extract BASE TUNED --rank 32 --out FILE  the difference of two pipelines as a LoRA
  hfdk lora convert FILE --to kohya --out FILE       the same in another layout

A name in --out that ends in .safetensors is the file; any other is a folder. What is there already is never written over."""

LAYOUTS, DTYPES = ("diffusers", "kohya", "peft"), ("float32", "float16", "bfloat16")
FILE = "a .safetensors file, a folder, or a Hub id"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="what", required=True, metavar="info | merge | resize | extract | convert")
    look = parts.add_parser("info", help="what is in a file")
    look.add_argument("file", metavar="FILE", help=FILE)
    merge = parts.add_parser("merge", help="the weighted sum of several")
    merge.add_argument("files", metavar="FILE[:WEIGHT]", nargs="+", help=f"{FILE}; weight 1 where none is said")
    resize = parts.add_parser("resize", help="fewer ranks")
    resize.add_argument("file", metavar="FILE", help=FILE)
    extract = parts.add_parser("extract", help="the difference of two pipelines")
    extract.add_argument("base", metavar="BASE", help="folder of a pipeline, or a Hub id")
    extract.add_argument("tuned", metavar="TUNED", help="the same, trained further")
    convert = parts.add_parser("convert", help="another layout")
    convert.add_argument("file", metavar="FILE", help=FILE)
    for part in (merge, resize, extract):
        part.add_argument("--rank", type=int, help="at most so many ranks a layer")
        part.add_argument(
            "--dynamic",
            metavar="METHOD=VALUE",
            help="sv_fro=0.95, sv_cumulative=0.9 or sv_ratio=10: no more ranks than that needs",
        )
        part.add_argument("--device", default="cpu", help="where it is worked out: cpu, cuda, mps (default: cpu)")
    for part in (merge, resize, extract, convert):
        part.add_argument("--out", required=True, type=Path, help="file to write, or a folder for it")
        default = (
            "required" if part is convert else "default: diffusers" if part is extract else "default: that of the first file"
        )
        part.add_argument("--to", choices=LAYOUTS, required=part is convert, help=f"layout ({default})")
        part.add_argument("--family", help="what the LoRA is for, where its layers do not tell: sd1, sd2, sdxl, flux")
        part.add_argument("--dtype", choices=DTYPES, help="precision of the file (default: as it comes)")
    for part in (look, merge, resize, extract, convert):
        # `--json` and `--debug` may stand before or after the word; SUPPRESS keeps the one from undoing the other.
        part.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout")
        part.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    return {"info": info, "merge": merge, "resize": resize, "extract": extract, "convert": convert}[args.what](args, say)


def info(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..lora_files import opened
    from ..loras.look import info

    told = info(opened(args.file))
    say(
        f"{args.file}: {told['layout']} layout, for {told['family'] or 'a model that its layers do not tell'}, {told['bytes']:,} bytes"
    )
    for part, one in told["parts"].items():
        ranks, scales = (", ".join(f"{value} ({count})" for value, count in one[key].items()) for key in ("ranks", "scales"))
        kinds = ", ".join(one["kinds"])
        say(
            f"  {part}: {one['layers']} layers ({kinds}), rank {ranks}, scale {scales}, {one['numbers']:,} numbers, length {one['length']:.4g}"
        )
    say(f"  strongest: {', '.join(f'{name} {length:.3g}' for name, length in told['strongest'].items())}")
    for key, value in sorted(told["metadata"].items()):
        say(f"  {key} = {' '.join(value.split())[:120]}")
    return {"file": args.file, **told}


def merge(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..lora_files import opened, weighted
    from ..loras import arithmetic

    named = weighted(args.files)
    files = [(opened(name), weight) for name, weight in named]
    adapter = on(args.device, arithmetic.merge([(on(args.device, file.layers), weight) for file, weight in files]))
    say(
        f"merged {len(files)} files of {', '.join(str(len(file.layers)) for file, _ in files)} layers into {len(adapter)}, exactly"
    )
    kept: dict[str, Any] = {}
    if args.rank is not None or args.dynamic is not None:
        adapter, kept = cut(adapter, args, say)
    return {**written(adapter, args, args.to or files[0][0].layout, say), "merged": dict(named), **kept}


def resize(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..lora_files import opened

    rule(args)
    file = opened(args.file)
    adapter, kept = cut(on(args.device, file.layers), args, say)
    return {**written(adapter, args, args.to or file.layout, say), **kept}


def extract(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from tqdm import tqdm

    from ..lora_extract import extract
    from ..loras.arithmetic import summary

    wanted = rule(args)
    with tqdm(desc="comparing weights", unit="tensor", leave=False, disable=None) as bar:

        def tick(total: int) -> None:
            bar.total = total
            bar.update()

        found = extract(args.base, args.tuned, wanted, device=device(args.device), tick=tick)
    kept = summary(found.cuts)
    say(f"{kept['layers']} layers differ, {found.same} tensors are the same; {told(kept)}")
    if found.left:
        length = sum(value**2 for value in found.left.values()) ** 0.5
        say(
            f"{len(found.left)} tensors differ that no LoRA holds (norms, biases, embeddings), by {length:.4g}: {next(iter(found.left))} ..."
        )
    out = written(found.adapter, args, args.to or "diffusers", say)
    return {**out, **kept, "same": found.same, "left_out": found.left}


def convert(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..lora_files import opened

    file = opened(args.file)
    say(f"{args.file}: {file.layout} layout, {len(file.layers)} layers")
    return written(file.layers, args, args.to, say)


def cut(adapter: Any, args: argparse.Namespace, say: Callable[[str], None]) -> tuple[Any, dict[str, Any]]:
    """The adapter at fewer ranks, and what was kept of it."""
    from tqdm import tqdm

    from ..loras.arithmetic import resize, summary

    with tqdm(total=len(adapter), desc="cutting ranks", unit="layer", leave=False, disable=None) as bar:
        cuts = resize(adapter, rule(args), tick=bar.update)
    kept = summary(cuts)
    ranks = [cut.layer.rank for cut in cuts.values()]
    say(f"ranks now {min(ranks)} to {max(ranks)}; {told(kept)}")  # type: ignore[type-var]
    return {name: cut.layer for name, cut in cuts.items()}, kept


def told(kept: dict[str, Any]) -> str:
    return (
        f"kept {kept['kept']:.2%} of the length (Frobenius norm), error {kept['error']:.4g}; "
        f"by layer {kept['kept_median']:.2%} in the middle, {kept['kept_worst']:.2%} at worst ({kept['worst_layer']})"
    )


def rule(args: argparse.Namespace) -> Any:
    """What --rank and --dynamic say. Raises ConfigError."""
    from ..errors import ConfigError
    from ..loras.arithmetic import Rule

    if args.dynamic is None:
        return Rule(args.rank)
    method, _, value = args.dynamic.partition("=")
    try:
        return Rule(args.rank, method, float(value))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{args.dynamic!r} says no number", where="lora: --dynamic", fix="--dynamic sv_fro=0.95", case=1
        ) from None


def device(name: str) -> Any:
    """Raises ConfigError for one that is not there."""
    from ..hardware import pick_device

    return pick_device(name)


def on(name: str, adapter: Any) -> Any:
    where = device(name)
    return {key: layer.mapped(lambda tensor: tensor.to(where)) for key, layer in adapter.items()}


def written(adapter: Any, args: argparse.Namespace, layout: str, say: Callable[[str], None]) -> dict[str, Any]:
    from ..lora_files import DTYPES, write

    files: Sequence[Path] = write(adapter, args.out, layout, family=args.family, dtype=DTYPES.get(args.dtype or ""))
    total = sum(path.stat().st_size for path in files)
    say(f"written:  {', '.join(str(path) for path in files)} ({layout} layout, {len(adapter)} layers, {total:,} bytes)")
    return {
        "out": str(args.out),
        "layout": layout,
        "layers": len(adapter),
        "files": [str(path) for path in files],
        "bytes": total,
    }
