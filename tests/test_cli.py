"""The command line: quick to answer, strict, one line an error, pure JSON where JSON was asked for."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
import toyset
from hf_diffusion_kit.cli import VERBS, main


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


def test_where_a_subset_would_go_is_looked_at_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    words = ["subset", "folder", str(tmp_path / "nowhere"), "--out", str(tmp_path / "full")]
    assert main(words) == 5 and "not an empty folder" in capsys.readouterr().err  # and not that there is no such source
