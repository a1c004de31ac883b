"""The command line: quick to answer, strict, one line an error, pure JSON where JSON was asked for."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import tiny
import toyset
from hf_diffusion_kit import cli
from hf_diffusion_kit.cli import VERBS, main
from hf_diffusion_kit.data import saved
from pictured import fill

ENV = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}


def hfdk(*words: str) -> int:
    return main(list(words))


def test_help_answers_at_once() -> None:
    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    empty = min(seconds("pass") for _ in range(3))
    assert min(seconds("from hf_diffusion_kit.cli import main; main(['--help'])") for _ in range(3)) - empty < 0.3
    assert min(seconds("import hf_diffusion_kit") for _ in range(3)) - empty < 0.05


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_tells_of_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        hfdk(verb, "--help")
    assert ended.value.code == 0 and f"hfdk {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian"], 2, "unknown verb 'trian'; did you mean 'train'"),
        (["train", "--bass", "x"], 2, "unrecognized arguments"),
        (["train", "--base", "digits", "stesp=3"], 2, "there is no setting 'stesp'; did you mean 'steps'"),
        (["train", "--base", "digits", "steps=0"], 2, "training: steps: must be above 0"),
        (["train", "loose.toml"], 2, "loose.toml: base stands outside of any section"),
        (["train", "--base", "digits", "--data", "DATA", "--device", "cudda"], 2, "'cudda' is not here"),
        (["train", "--base", "digits", "--data", "DATA", "targets=to_qq"], 2, "'to_qq' is no layer of the unet"),
        (["hub", "serve", "--port", "abc"], 2, "invalid int value"),
        (["train", "none.toml"], 2, "none.toml: there is no such file"),
        (["train", "--base", "digits"], 2, "there are no pictures"),
        (["train", "--base", "./nowhere", "--data", "DATA"], 2, "./nowhere: is no folder"),
        (["train", "--base", "digits", "--data", "DATA", "--resolution", "30"], 2, "multiples of 8"),
        (["resume", "nowhere"], 2, "nowhere: holds no run"),
        (["publish", "nowhere", "--repo", "a/b"], 2, "holds no finished run"),
        (["demo", "--digit", "5"], 2, "5 is not new to digits-seven"),
        (["explain"], 2, "is not there yet"),
        (["train", "--base", "digits", "--data", "nowhere"], 3, "nowhere"),
    ],
)
def test_an_error_is_one_line_and_a_code(
    words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    toyset.folder(tmp_path / "DATA", count=2)
    (tmp_path / "loose.toml").write_text('base = "digits"\n')
    assert hfdk(*words) == code
    out, err = capsys.readouterr()
    line = err.replace("\r", "\n").strip().splitlines()[-1]  # above it at most a progress bar
    assert said in line and line.startswith("error[E-") and "Traceback" not in err and not out
    assert not list(tmp_path.glob("runs/*/run.toml"))


def test_train_publish_evaluate_export_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], online: None
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.pipeline().save_pretrained(tmp_path / "base")
    toyset.folder(tmp_path / "mine", count=3)
    (tmp_path / "run.toml").write_text('[base]\nid = "base"\nlicense = "mit"\n[data]\npath = "mine"\n[training]\nsteps = 9\n')
    words = ["run.toml", "steps=3", "rank=2", "gallery.pictures=1", "gallery.steps=2", "--resolution", "16", "24"]
    assert hfdk("train", *words, "--out", "runs/one", "--repo", "you/one", "--hub", "local", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 3 and told["difference"] == 0 and told["published"].startswith("http://127.0.0.1")
    assert hfdk("resume", "runs/one", "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
    assert hfdk("resume", "runs/one", "steps=5", "--allow-change", "training.stepz") == 2
    assert "did you mean 'training.steps'" in capsys.readouterr().err
    assert hfdk("resume", "runs/one", "--allow-change", "method.rank", "rank=4") == 4
    assert "holds other weights than this method trains" in capsys.readouterr().err
    assert hfdk("resume", "runs/one", "steps=5") == 4
    assert "training.steps: 3 -> 5" in capsys.readouterr().err
    assert hfdk("resume", "runs/one", "--allow-change", "training.steps", "steps=5", "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 5
    assert hfdk("evaluate", "runs/one", "--json") == 0
    assert json.loads(capsys.readouterr().out)["largest"] == 0
    assert hfdk("publish", "runs/one", "--repo", "you/one", "--hub", "local", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False
    assert hfdk("export", "runs/one", "--out", "merged", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bytes"] > 10_000


def test_a_pipe_whose_reader_has_left_is_no_error() -> None:
    code = "import sys; from hf_diffusion_kit.cli import main; sys.stdin.read(); sys.exit(main(['--help']))"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin and child.stdout and child.stderr
    child.stdout.close()
    child.stdin.close()
    with child.stderr:
        assert child.wait() == 0 and child.stderr.read() == b""


STREAMS = {
    "both left by their reader": "({command} 2>&1; echo $? > code) | true",
    "stderr left by its reader": "({command} 2>&1 >/dev/null; echo $? > code) | true",
    "both closed": "{command} >&- 2>&-; echo $? > code",
    "stderr on a full disk": "{command} 2>/dev/full; echo $? > code",
}
WORK = """
import sys
from tqdm import tqdm
from hf_diffusion_kit import cli
def work():
    for _ in tqdm(range(3), mininterval=0):
        cli.show("heard?")
    open("done", "w").close()
    return 0
cli._main = lambda words: work()
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("case", STREAMS)
def test_progress_that_nobody_can_be_shown_does_not_stop_the_work(case: str, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    subprocess.run(
        ["bash", "-c", STREAMS[case].format(command=f"{sys.executable} work.py")], cwd=tmp_path, env=ENV, capture_output=True
    )
    assert (tmp_path / "code").read_text() == "0\n" and (tmp_path / "done").is_file()


def test_an_answer_that_cannot_be_written_is_an_error() -> None:
    command = [sys.executable, "-m", "hf_diffusion_kit", "--version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 5 and done.stderr.startswith("error[E-DISK] No space left on device.\n")


def test_letters_that_the_terminal_lacks_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "ünï 猫", ["ä.jpg"])
    for more in ([], ["--json"]):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out := io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
            assert hfdk("subset", "folder", "ünï 猫", "--prompt", "ein Bär 🐻", "--out", "öut", *more) == 0
    assert json.loads(out.buffer.getvalue())["folder"] == "öut"


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_command_that_is_ended_leaves_nothing_half_written(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "mine", ["a.jpg"])
    number, whole = getattr(signal, name), saved.sync
    words = ["subset", "folder", "mine", "--prompt", "x", "--out", "out"]

    def sync(path: Path) -> None:
        if path.name == "README.md":
            assert list(tmp_path.glob(".tmp-out-*"))
            os.kill(os.getpid(), number)
        whole(path)

    monkeypatch.setattr(saved, "sync", sync)
    before = signal.getsignal(number)
    assert hfdk(*words) == code and capsys.readouterr().err.endswith("stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and signal.getsignal(number) == before
    if name == "SIGHUP":
        signal.signal(number, signal.SIG_IGN)  # as under nohup
        try:
            assert hfdk(*words) == 0
        finally:
            signal.signal(number, before)


def test_what_no_reader_of_a_file_has_foreseen_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: OSError) -> int:
        raise error

    told = [PermissionError(13, "Permission denied", "a/b"), ConnectionResetError(104, "reset")]
    assert [cli.in_one_line(partial(fails, error)) for error in told] == [5, 6]
    assert capsys.readouterr().err == "error[E-DISK] a/b: Permission denied.\nerror[E-NET] reset.\n"
    with pytest.raises(PermissionError):
        cli.in_one_line(partial(fails, told[0]), debug=True)


def test_where_a_subset_would_go_is_looked_at_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    words = ["subset", "folder", str(tmp_path / "nowhere"), "--out", str(tmp_path / "full")]
    assert main(words) == 5 and "not an empty folder" in capsys.readouterr().err  # and not that there is no such source
