"""`hfdk`: one verb, one file. Only the chosen verb's file is imported, and what is heavy only when the verb runs."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from .. import __version__
from ..errors import KitError, NetworkError, StorageError, nearest
from .signals import Ended, ended_cleanly
from .streams import printable, unheard

VERBS = {
    "demo": "the main job on embedded data: teach a small model a digit it has never seen, publish it, load it back",
    "subset": "pick captioned pictures, from COCO or a folder of your own, into one folder that `load_dataset` opens",
    "check": "look at every picture and caption of a folder before it costs GPU time",
    "captions": "read and edit the captions of a folder of pictures in a browser",
    "train": "train an adapter from a TOML file, key=value words or flags",
    "resume": "go on with a run that was stopped, as if it had not been",
    "evaluate": "draw a run's gallery again and say whether it is still the same",
    "publish": "put a finished run, or a subset, on the Hub in one commit, with its card",
    "export": "write a finished run in another format",
    "lora": "look into LoRA files, add them up, cut them down, extract or convert them",
    "cache": "what is kept on disk of encoded pictures and captions: how much, and less of it",
    "explain": "look inside a pipeline (not there yet)",
    "digits": "the embedded base: train it from nothing, score it, write it as a COCO folder",
    "hub": "serve a Hugging Face Hub on this machine",
}
"""Verb -> what it is for. The words stand here so that `--help` imports nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or that of the error (see `errors.py`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    with unheard(), ended_cleanly():
        return in_one_line(lambda: _main(words), debug="--debug" in words)


def _main(words: list[str]) -> int:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it remarks on torchvision, which is not needed here
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help"):
        show(overview())
        return 0
    if verb == "--version":
        show(__version__)
        return 0
    if verb not in VERBS:
        show(f"error[E-CLI-01] unknown verb {verb!r}; {nearest(verb, VERBS)}", aside=True)
        return 2
    module = import_module(f".{verb}", __name__)
    parser = Parser(
        prog=f"hfdk {verb}",
        description=getattr(module, "HELP", VERBS[verb]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = parser.add_argument_group("output")
    common.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command_line=words)
    module.add_arguments(parser)
    parse = parser.parse_intermixed_args if getattr(module, "INTERMIXED", False) else parser.parse_args
    return finish(module.run, parse(words[1:]))


def in_one_line(work: Callable[[], int], *, debug: bool = False) -> int:
    """The exit code of what is done, or of its error, which is printed."""
    try:
        return work()
    except KitError as error:
        if debug:
            raise
        show(error.line(), aside=True)
        return error.exit_code
    except OSError as error:  # what no reader of a file has foreseen, in one line all the same
        if debug:
            raise
        kind = NetworkError if isinstance(error, ConnectionError | TimeoutError) else StorageError
        show(kind(error.strerror or str(error), where=error.filename).line(), aside=True)
        return kind.exit_code
    except KeyboardInterrupt as error:
        show("stopped", aside=True)
        return error.exit_code if isinstance(error, Ended) else 130


def finish(verb: Callable[..., dict[str, Any]], args: argparse.Namespace) -> int:
    result = verb(args, lambda text: show(text, aside=args.json))
    if args.json and not result.pop("told_by_another", False):
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        show(text if printable(text, sys.stdout) == text else json.dumps(result, allow_nan=False))
    return int(result.get("exit_code", 0))


def show(text: str, *, aside: bool = False) -> None:
    """A line on stdout, or `aside` on stderr; where several processes share a run, the others say which they are."""
    rank = os.environ.get("RANK", "0")
    text = text if rank == "0" else f"[process {rank}] {text}"
    print(text, file=sys.stderr if aside else sys.stdout, flush=True)


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong word is one line with the nearest right one."""

    def error(self, message: str) -> Any:
        from ..errors import ConfigError

        known = [option for action in self._actions for option in action.option_strings]
        words = message.split() if message.startswith("unrecognized arguments") else []
        wrong = next((word.partition("=")[0] for word in words if word.startswith("--")), "")
        hint = f"; {nearest(wrong, known)}" if wrong else ""
        fix = f"{self.prog} --help"
        if (flag := re.match(r"argument (--[\w-]+).*: expected .*argument", message)) is not None:
            fix = f"{flag[1]} VALUE, and {flag[1]}=VALUE for one that begins with -; {fix}"
        raise ConfigError(f"{message}{hint}", where=self.prog, fix=fix, case=1)


def overview() -> str:
    lines = [f"  {verb:10}{text}" for verb, text in VERBS.items()]
    head = "hfdk: from captioned pictures to a verified, published adapter of a text-to-image model"
    return "\n".join([head, "", "usage: hfdk VERB ...   (hfdk VERB --help tells of each)", "", *lines])
