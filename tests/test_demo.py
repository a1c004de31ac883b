"""The demo, whole: quick with next to no training, and slow with the figures it promises."""

import json
from pathlib import Path

import pytest
from PIL import Image

from hf_diffusion_kit.cli import main
from hf_diffusion_kit.demo import demo
from hf_diffusion_kit.records import RunRecord

KEYS = {"unseen_before", "unseen_after", "others_before", "others_after", "reload_difference", "seconds"}


@pytest.mark.slow
def test_each_chapter_of_the_story_is_told(tmp_path: Path, online: None) -> None:
    heard: list[str] = []
    told = demo(tmp_path / "out", digit=4, judged=8, say=heard.append, progress=False, steps=3, class_count=7, pictures=2)
    assert told.keys() >= KEYS and told["reload_difference"] == 0
    assert told["unseen_before"] < 0.3 and told["others_before"] > 0.9
    record = RunRecord.load(tmp_path / "out" / "run" / "run.json")
    instance = [use for use in record.captions if use.role == "instance"]
    assert record.data.rows == 10 and instance and all("four" in use.text or not use.text for use in instance)
    assert record.scores["unseen_before"] == told["unseen_before"]
    with Image.open(told["sheet"]) as page:
        assert page.width > 800
    story = "\n".join(heard)
    for part in ("ten captioned pictures", "one commit", "stable-diffusion-v1-5", "hfdk hub serve", told["sheet"]):
        assert part in story


@pytest.mark.slow
def test_a_digit_is_learnt_and_none_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str], online: None) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), "--digit", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["unseen_before"] < 0.1 and told["unseen_after"] >= 0.65
    assert told["others_before"] >= 0.99 and told["others_after"] >= 0.99
    assert told["nearest_training_ratio"] > 0.75 and told["reload_difference"] == 0
