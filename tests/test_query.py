"""The index answers what the row-by-row filter answers; names that a file does not have are errors."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.data.base import Findings, Row
from hf_diffusion_kit.data.coco import Coco
from hf_diffusion_kit.data.index import open_index
from hf_diffusion_kit.data.query import draw, query
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.data.wanted import wanted
from hf_diffusion_kit.errors import ConfigError, KitError, SourceError
from pictured import coco

NAMES = {1: ("person", "person"), 17: ("cat", "animal"), 18: ("dog", "animal"), 34: ("frisbee", "sports"), 52: ("banana", "food")}
KINDS = ["by-nc-sa", "by-nc", "by-nc-nd", "by", "by-sa", "by-nd"]
WORDS = [
    "a",
    "dog",
    "plays",
    "with",
    "the",
    "red",
    "frisbee",
    "while",
    "two",
    "cats",
    "sleep",
    "on",
    "grass",
    "near",
    "an",
    "old",
    "house",
]


def pair(folder: Path, count: int = 60, seed: int = 0) -> Path:
    """Annotations alone: sizes, licences, captions and objects by chance."""
    rng = random.Random(seed)
    numbers = rng.sample(range(1, 999), count)
    sizes = [(640, 480), (480, 640), (300, 200), (500, 500), (0, 0)]
    images: list[dict[str, Any]] = []
    for n in numbers:
        width, height = rng.choice(sizes)
        image = {"id": n, "file_name": f"{n:012d}.jpg", "width": width, "height": height}
        images.append({**image, "license": rng.randrange(1, 7)} if rng.random() < 0.9 else image)
    notes = [
        {"image_id": n, "id": 1000 * n + k, "caption": " ".join(rng.choices(WORDS, k=rng.randrange(1, 9)))}
        for n in numbers
        for k in range(rng.randrange(1, 6))
    ]
    things = [
        {
            "image_id": rng.choice(numbers),
            "id": i,
            "category_id": rng.choice(list(NAMES)),
            "area": rng.uniform(1, 2e5),
            "iscrowd": int(i % 7 == 0),
        }
        for i in range(3 * count)
    ]
    licenses = [
        {"id": i, "name": f"Kind {i}", "url": f"http://creativecommons.org/licenses/{kind}/2.0/"}
        for i, kind in enumerate(KINDS, 1)
    ]
    categories = [{"id": number, "name": name, "supercategory": above} for number, (name, above) in NAMES.items()]
    for name, content in {
        "captions": {"images": images, "licenses": licenses, "annotations": notes},
        "instances": {"annotations": things, "categories": categories},
    }.items():
        (folder / f"{name}_val2017.json").write_text(json.dumps(content))
    return folder


def asked(folder: Path, **choosing: Any) -> tuple[list[str], Findings]:
    index = open_index(folder / "captions_val2017.json", folder / "instances_val2017.json")
    findings = Findings()
    places = query(index, Subset.of(**choosing), findings)
    return index.column("image_id", places), findings


def by_row(folder: Path, **choosing: Any) -> tuple[list[str], Findings]:
    source, findings = Coco(folder, None, "val2017"), Findings()
    return [row.image_id for row in wanted(source.rows(Subset()), Subset.of(**choosing), findings)], findings


def random_choice(rng: random.Random) -> dict[str, Any]:
    names = [name for name, _ in NAMES.values()]
    told: dict[str, Any] = {
        "category": rng.sample(names, rng.randrange(1, 3)),
        "any_category": rng.sample(names, rng.randrange(1, 4)),
        "not_category": rng.sample(names, 1),
        "min_side": rng.choice([100, 300, 481]),
        "min_aspect": rng.choice([0.5, 1.0, 1.2]),
        "max_aspect": rng.choice([1.2, 1.4]),
        "license": rng.choice([["commercial"], ["modifiable"], ["redistributable", "commercial"], ["Kind 4", "Kind 1"]]),
        "min_words": rng.choice([2, 4]),
        "max_words": rng.choice([4, 6]),
        "match": rng.choice(["dog", r"\bcats?\b", "^a", "FRISBEE|house"]),
    }
    return {name: told[name] for name in rng.sample(sorted(told), rng.randrange(1, 5))}


@pytest.mark.slow
def test_the_index_answers_as_the_rows_do(tmp_path: Path) -> None:
    """300 random choices: the same pictures, and the same counts for the same reasons."""
    pair(tmp_path)
    rng = random.Random(7)
    sizes = set()
    for _ in range(300):
        told = random_choice(rng)
        try:
            Subset.of(**told)
        except ConfigError:  # the same category wanted and excluded
            continue
        one, other = asked(tmp_path, **told), by_row(tmp_path, **told)
        assert one[0] == other[0] and one[1].left_out == other[1].left_out, told
        sizes.add(len(one[0]))
    assert len(sizes) > 20


def test_objects_count_by_their_share_and_crowds_only_when_asked(tmp_path: Path) -> None:
    pair(tmp_path)
    content = json.loads((tmp_path / "instances_val2017.json").read_text())
    sizes = {row.image_id: row.width * row.height for row in Coco(tmp_path, None).rows(Subset())}

    def expected(least: float, crowd: bool, kinds: set[int]) -> list[str]:
        good = {
            str(thing["image_id"])
            for thing in content["annotations"]
            if thing["category_id"] in kinds
            and (crowd or not thing["iscrowd"])
            and sizes[str(thing["image_id"])]
            and thing["area"] / sizes[str(thing["image_id"])] >= least
        }
        return sorted(good, key=lambda n: (len(n), n))

    assert asked(tmp_path, category="dog", min_area=0.2)[0] == expected(0.2, True, {18})
    assert asked(tmp_path, any_category=["dog", "cat"], min_area=0.1, crowd=False)[0] == expected(0.1, False, {17, 18})
    assert asked(tmp_path, supercategory="animal", min_area=0.3)[0] == expected(0.3, True, {17, 18})
    found, findings = asked(tmp_path, min_area=0.5)
    assert found == expected(0.5, True, set(NAMES)) and findings.left_out["pictures without an object of 0.5 of the picture"]
    with pytest.raises(ConfigError, match="no category is asked for"):
        asked(tmp_path, crowd=False)
    for thing in content["annotations"]:
        del thing["area"]
    (tmp_path / "instances_val2017.json").write_text(json.dumps(content))
    assert asked(tmp_path, category="dog")[0]
    with pytest.raises(SourceError, match="no object states its area"):
        asked(tmp_path, category="dog", min_area=0.1)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"category": "dgo"}, "unknown category 'dgo'; did you mean 'dog'"),
    ({"any_category": "catt"}, "unknown category 'catt'; did you mean 'cat'"),
    ({"not_category": "persn"}, "did you mean 'person'"),
    ({"category": "animal"}, "it is a supercategory: supercategory='animal'"),
    ({"supercategory": "animals"}, "unknown supercategory 'animals'; did you mean 'animal'"),
    ({"license": "comercial"}, "unknown licence 'comercial'; did you mean 'commercial'"),
    ({"category": "dog", "not_category": "Dog"}, "'dog' is excluded and stands in category too"),
    ({"any_category": ["cat", "dog"], "not_category": ["DOG"]}, "'dog' is excluded and stands in any_category too"),
    ({"match": "("}, "no regular expression"),
    ({"min_words": 9, "max_words": 2}, "above max_words"),
    ({"min_area": 2}, "between 0 and 1"),
    ({"caption": "frist"}, "unknown caption policy 'frist'; did you mean 'first'"),
    ({"caption": "nth:0"}, "unknown caption policy"),
    ({"categroy": "dog"}, "unknown argument 'categroy'; did you mean 'category'"),
]


@pytest.mark.parametrize(("told", "what"), WRONG, ids=lambda value: str(value)[:40])
def test_what_cannot_be_meant_is_an_error_with_the_nearest(told: dict[str, Any], what: str, tmp_path: Path) -> None:
    pair(tmp_path, 8)
    with pytest.raises(KitError, match=what) as caught:
        asked(tmp_path, **told)
    assert caught.value.exit_code == 2


def test_a_spec_is_hashable_and_equal_when_it_means_the_same() -> None:
    one = Subset(category=("dog", "Frisbee"), count=3)
    other = Subset.of(category=["frisbee", "dog", "dog"], count=3, seed=None)
    assert one == other and hash(one) == hash(other) and one.digest == other.digest
    assert one.digest != Subset(category=("dog",), count=3).digest
    assert Subset.of(category="cat").category == ("cat",)
    told = Subset(any_category=("cat",), crowd=False, min_area=0.1, count=2, seed=3, caption="nth:2", match="a b")
    words = "--any-category cat --min-area 0.1 --no-crowd --match|a b|--count 2 --seed 3 --caption nth:2"
    assert told.words() == [word for part in words.split("|") for word in (part.split() if part != "a b" else [part])]


def test_licences_without_a_list_are_coco_s_own(tmp_path: Path) -> None:
    pair(tmp_path, 30)
    file = tmp_path / "captions_val2017.json"
    content = json.loads(file.read_text())
    del content["licenses"]
    file.write_text(json.dumps(content))
    rows = list(Coco(tmp_path, None).rows(Subset(license=("commercial",))))
    assert rows and {row.license for row in rows} <= {
        "Attribution License",
        "Attribution-ShareAlike License",
        "Attribution-NoDerivs License",
    }
    assert [row.image_id for row in rows] == [row.image_id for row in Coco(tmp_path, None).rows(Subset(license=("4", "5", "6")))]
    assert "its numbers are read as COCO's own" in " ".join(open_index(file).findings().notes)
    content["licenses"] = [{"id": n, "name": "House rules", "url": ""} for n in range(1, 7)]
    file.write_text(json.dumps(content))
    assert not list(Coco(tmp_path, None).rows(Subset(license=("modifiable",))))  # nothing is known of them


def test_the_draw_depends_on_seed_and_ids_alone(tmp_path: Path) -> None:
    index = open_index(pair(tmp_path) / "captions_val2017.json")
    places = query(index, Subset(), Findings())
    few = {
        seed: tuple(index.columns(draw(index, places, Subset(count=5, seed=seed)))["image_id"].to_pylist()) for seed in range(9)
    }
    assert len(set(few.values())) == 9 and few[3][:4] == tuple(
        index.columns(draw(index, places, Subset(count=4, seed=3)))["image_id"].to_pylist()
    )
    less = places[places % 2 == 0]
    kept = set(index.column("image_id", less))
    whole = [n for n in index.columns(draw(index, places, Subset(count=60, seed=3)))["image_id"].to_pylist() if n in kept]
    assert whole == index.columns(draw(index, less, Subset(count=len(less), seed=3)))["image_id"].to_pylist()
    with pytest.raises(SourceError, match="61 pictures are asked for and 60 are there"):
        draw(index, places, Subset(count=61))


def test_the_conditions_reach_every_source(tmp_path: Path) -> None:
    """A folder of one's own takes those that its rows can answer, and says which it cannot."""
    data = load_captioned("coco", annotations=coco(tmp_path) / "annotations", images=tmp_path, category="dog")
    data.save(tmp_path / "dogs")
    again = load_captioned(tmp_path / "dogs", not_category="frisbee", max_words=4, caption="longest")
    assert again.left_out["pictures with frisbee"] == 1 and len(again) == len(data) - 1
    with pytest.raises(ConfigError, match="COCO's annotations only"):
        load_captioned(tmp_path / "dogs", supercategory="animal")


def test_wanted_takes_rows_of_unknown_size() -> None:
    row = Row("1", "a.jpg", None, ("a dog",))
    assert list(wanted([row], Subset(min_side=99), Findings())) == [row]


def test_categories_of_one_name_are_one(tmp_path: Path) -> None:
    """Merged files have `dog` and `Dog` under two numbers; both are dogs, and so are `Animal` and `animal`."""
    pair(tmp_path)
    file = tmp_path / "instances_val2017.json"
    content = json.loads(file.read_text())
    both = set(asked(tmp_path, any_category=["dog", "cat"])[0])
    for entry in content["categories"]:
        entry["name"] = "Dog" if entry["name"] == "cat" else entry["name"]
        entry["supercategory"] = "Animal" if entry["id"] == 17 else entry["supercategory"]
    file.write_text(json.dumps(content))
    assert set(asked(tmp_path, category="dog")[0]) == set(asked(tmp_path, supercategory="animal")[0]) == both
    assert not both & set(asked(tmp_path, not_category="DOG")[0])


def test_objects_that_are_not_counted_are_told(tmp_path: Path) -> None:
    pair(tmp_path)
    file = tmp_path / "instances_val2017.json"
    content = json.loads(file.read_text())
    dogs = [thing for thing in content["annotations"] if thing["category_id"] == 18]
    dogs[0]["area"] = None
    dogs[1]["area"] = 1e300  # beyond what float32 holds, and large enough
    dogs[1]["iscrowd"] = dogs[0]["iscrowd"] = None
    stray = [{"image_id": 5000, "category_id": 18}, {"image_id": dogs[0]["image_id"], "category_id": 99}]
    content["annotations"] += stray
    file.write_text(json.dumps(content))
    _, findings = asked(tmp_path, category="dog", min_area=0.1)
    notes = " ".join(findings.notes)
    assert "no area, or of pictures that state no size, were not counted" in notes
    told = open_index(tmp_path / "captions_val2017.json", file).findings().notes
    assert "objects of categories without a name were not counted: 1" in told
    assert "objects of pictures that are not listed or have no caption were not counted: 1" in told


def test_without_objects_their_conditions_are_an_error(tmp_path: Path) -> None:
    pair(tmp_path)
    index = open_index(tmp_path / "captions_val2017.json")
    for told in ({"category": "dog"}, {"not_category": "dog"}, {"supercategory": "animal"}, {"min_area": 0.1}):
        with pytest.raises(SourceError, match=r"no category of objects is known. Fix: put instances_val2017\.json beside"):
            query(index, Subset.of(**told), Findings())


ADDRESS = "http://images.cocodataset.org"


@pytest.mark.parametrize(
    ("split", "name", "told", "address"),
    [
        (
            "val2014",
            "COCO_val2014_000000000009.jpg",
            "http://mscoco.org/images/9",
            f"{ADDRESS}/val2014/COCO_val2014_000000000009.jpg",
        ),
        ("mixed", "COCO_train2014_000000000009.jpg", "", f"{ADDRESS}/train2014/COCO_train2014_000000000009.jpg"),
        ("val2017", "000000000009.jpg", "", f"{ADDRESS}/val2017/000000000009.jpg"),
        ("val2017", "000000000009.jpg", "https://mirror.org/9.jpg", "https://mirror.org/9.jpg"),
        ("mine", "000000000009.jpg", "", ""),
        ("mine", "a.jpg", "http://mscoco.org/images/9", "http://mscoco.org/images/9"),
        ("val2017", "holiday.jpg", "", ""),
        ("val2017", "COCO_mine_000000000009.jpg", "", ""),
    ],
)
def test_official_pictures_have_the_address_that_lives(split: str, name: str, told: str, address: str, tmp_path: Path) -> None:
    image = {"id": 9, "file_name": name, "coco_url": told}
    content = {"images": [image], "annotations": [{"image_id": 9, "id": 1, "caption": "x"}]}
    (tmp_path / f"captions_{split}.json").write_text(json.dumps(content))
    assert [row.coco_url for row in Coco(tmp_path, None).rows(Subset())] == [address]


def test_a_licence_that_no_picture_has_is_no_error(tmp_path: Path) -> None:
    pair(tmp_path)
    file = tmp_path / "captions_val2017.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["license"] = 1
    content["licenses"].append({"id": 12, "name": "House rules", "url": ""})
    file.write_text(json.dumps(content))
    assert asked(tmp_path, license="Kind 4")[0] == asked(tmp_path, license="12")[0] == []
    assert len(asked(tmp_path, license="Kind 1")[0]) == 60


def test_what_is_there_and_too_small_is_not_said_to_be_missing(tmp_path: Path) -> None:
    pair(tmp_path)
    there, _ = asked(tmp_path, category="dog")
    large, findings = asked(tmp_path, category="dog", min_area=0.3)
    assert findings.left_out == {
        "pictures without dog": 60 - len(there),
        "pictures whose dog is under 0.3 of the picture": len(there) - len(large),
    }
    one, findings = asked(tmp_path, category="dog", crowd=False)
    assert findings.left_out["pictures whose dog is only a crowd"] == len(there) - len(one) > 0
    without, _ = asked(tmp_path, not_category="dog", crowd=False)
    assert set(without) == {str(row.image_id) for row in Coco(tmp_path, None).rows(Subset())} - set(one)


def test_a_name_that_no_row_has_is_an_error_outside_coco_too() -> None:
    rows = [Row("1", "a.jpg", None, ("a dog",), categories=("dog",), license="House rules")]
    for told, what in (
        ({"not_category": "dgo"}, "no row has the category 'dgo'; did you mean 'dog'"),
        ({"any_category": ["dog", "cta"]}, "category 'cta'"),
        ({"license": "hose rules"}, "did you mean 'house rules'"),
    ):
        with pytest.raises(ConfigError, match=what):
            list(wanted(rows, Subset.of(**told), Findings()))
    with pytest.raises(ConfigError, match="the rows state none"):
        list(wanted([Row("1", "a.jpg", None, ("a",))], Subset(category=("dog",)), Findings()))
