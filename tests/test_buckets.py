"""Every picture has a bucket and is shown exactly once an epoch of it; which group comes when is a function of its number alone."""

import json
import random
import time
from collections import Counter
from math import isqrt

import pytest

from hf_diffusion_kit.data.pixels import Crop
from hf_diffusion_kit.errors import ConfigError
from hf_diffusion_kit.training.buckets import Buckets, assign, sizes
from hf_diffusion_kit.training.plan import Plan
from hf_diffusion_kit.training.randomness import order

Shapes = list[tuple[int, int]]


def shapes(count: int, seed: int = 0, most: int = 3000) -> Shapes:
    draw = random.Random(seed)
    return [(draw.randint(20, most), draw.randint(20, most)) for _ in range(count)]


# Sizes


def test_the_sizes_of_512_are_those_of_kohya() -> None:
    wide = [(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576)]
    assert sizes(512) == sorted([(512, 512), *wide, *[(w, h) for h, w in wide]])
    assert (1024, 1024) in sizes(1024) and (832, 1216) in sizes(1024) and (768, 1344) in sizes(1024)


@pytest.mark.parametrize("resolution", [512, 500, 1024, (512, 768), (768,), 64, (16, 24)])
@pytest.mark.parametrize("step", [8, 32, 64])
def test_no_size_is_larger_than_asked_or_smaller_than_it_could_be(resolution: int | tuple[int, ...], step: int) -> None:
    first, last = (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[-1])
    area = first * last
    if isqrt(area) // step == 0:
        with pytest.raises(ConfigError, match="bucket_step"):
            sizes(resolution, step)
        return
    found = sizes(resolution, step)
    longest = 2 * isqrt(area)
    for height, width in found:
        assert height % step == width % step == 0 and (width, height) in found
        assert height * width <= area and max(height, width) <= longest and 2 * min(height, width) >= isqrt(area)
        grows = [(height + step, width), (height, width + step)]
        assert height == width or any(h * w > area or max(h, w) > longest for h, w in grows)


def test_sides_that_leave_nothing_are_an_error() -> None:
    assert sizes(512, 64, 512, 512) == [(512, 512)] and sizes(512, 64, 500, 512) == [(512, 512)]
    with pytest.raises(ConfigError, match="no size of 512x512"):
        sizes(512, 64, 600, 1024)
    with pytest.raises(ConfigError, match="bucket_step"):
        sizes(512, 0)


# Assignment


def test_a_picture_gets_the_size_that_cuts_least_of_it() -> None:
    known = sizes(512)
    pictures = shapes(400)
    for shape, size in zip(pictures, assign(pictures, known).size_of, strict=True):
        assert Crop(shape, size).cut == pytest.approx(min(Crop(shape, other).cut for other in known), abs=1e-9)
    # where two sizes have the same ratio, the larger one
    assert assign([(832, 256)], known).size_of == ((832, 256),)
    assert assign([(100, 100)], [(256, 256), (512, 512)]).size_of == ((512, 512),)


def test_without_upscaling_a_picture_gets_the_largest_size_that_it_fills() -> None:
    known, pictures = sizes(512), shapes(500, 1) + shapes(500, 2, most=600)
    fallen = 0
    for shape, size, free in zip(
        pictures, assign(pictures, known, upscale=False).size_of, assign(pictures, known).size_of, strict=True
    ):
        assert size[0] % 64 == size[1] % 64 == 0 and size[0] * size[1] <= 512 * 512 and max(size) <= 1024
        if min(shape) < 64:
            assert min(size) == 64
            continue
        assert Crop(shape, size).scale <= 1, (shape, size)
        if shape[0] >= free[0] and shape[1] >= free[1]:
            assert size == free
        else:
            fallen += 1
            filled = [(h, w) for h in range(64, 1025, 64) for w in range(64, 1025, 64) if h <= shape[0] and w <= shape[1]]
            assert size[0] * size[1] == max(h * w for h, w in filled if h * w <= 512 * 512)
    assert fallen > 200


def test_the_report_holds_every_picture() -> None:
    pictures = shapes(300, 3)
    for upscale in (True, False):
        buckets = assign(pictures, sizes(512), upscale)
        rows = buckets.report()
        assert sum(row["pictures"] for row in rows) == 300 and json.loads(json.dumps(rows)) == rows
        assert sorted(i for members in buckets.members.values() for i in members) == list(range(300))
        assert sum(row["enlarged"] for row in rows) == sum(
            Crop(shape, size).scale > 1 for shape, size in zip(pictures, buckets.size_of, strict=True)
        )
        assert len({len(line) for line in buckets.lines()}) == 1 and len(buckets.lines()) == len(rows) + 1
    assert assign(pictures, sizes(512)).report() == assign(pictures, sizes(512)).report()


def test_notes_say_what_is_cut_enlarged_and_repeated() -> None:
    one = assign([(20, 32), (40, 40), (16, 24)], [(16, 24)])
    assert one.notes("instance") == ["2 of 3 instance pictures were cropped to 16x24: 20% of their area on average, 33% at most"]
    assert "1 of 1 class pictures are smaller than 16x24 and were enlarged, up to 2.0 times" in assign(
        [(8, 12)], [(16, 24)]
    ).notes("class")
    several = assign([(512, 512), (512, 512), (1024, 256), (100, 50)], sizes(512))
    said = several.notes("instance", group_size=2)
    assert any("nearest of 3 buckets" in note or "smaller than their bucket" in note for note in said)
    assert said[-1].startswith("2 of 3 buckets hold fewer instance pictures than the 2 shown at once")


# The plan

CASES = [
    ((1,), 1),
    ((1,), 4),
    ((5,), 2),
    ((7,), 7),
    ((3,), 8),
    ((5, 3), 2),
    ((1, 1, 1), 4),
    ((2, 9, 4), 3),
    ((13, 1, 6, 2), 5),
    ((100, 7), 8),
    ((40, 30, 20, 10), 1),
]


def planned(counts: tuple[int, ...], group: int, seed: int = 3) -> Plan:
    """Members that are no run of numbers, so that a place in a bucket cannot pass for a place in the set."""
    mixed = random.Random(sum(counts)).sample(range(1000), sum(counts))
    starts = [sum(counts[:b]) for b in range(len(counts))]
    return Plan(tuple(tuple(mixed[s : s + n]) for s, n in zip(starts, counts, strict=True)), group, seed, "instance")


@pytest.mark.parametrize(("counts", "group"), CASES)
def test_every_picture_comes_exactly_once_in_each_epoch_of_its_bucket(counts: tuple[int, ...], group: int) -> None:
    plan = planned(counts, group)
    home = {index: b for b, members in enumerate(plan.members) for index in members}
    epochs = 3 * group
    streams: dict[int, list[tuple[int, int]]] = {b: [] for b in range(len(counts))}
    for epoch in range(epochs):
        turns: Counter[int] = Counter()
        for k in range(plan.before(epoch), plan.before(epoch + 1)):
            shown = plan.group(k)
            assert plan.epoch(k) == epoch and len(shown) == group
            (bucket,) = {home[index] for index, _ in shown}
            streams[bucket] += shown
            turns[bucket] += 1
        for bucket, n in enumerate(counts):
            assert turns[bucket] == n * (epoch + 1) // group - n * epoch // group
    for bucket, n in enumerate(counts):
        assert len(streams[bucket]) == n * epochs  # 3 G epochs leave nothing over
        for epoch in range(epochs):
            part = streams[bucket][epoch * n : (epoch + 1) * n]
            assert {e for _, e in part} == {epoch} and sorted(i for i, _ in part) == sorted(plan.members[bucket])


@pytest.mark.parametrize(("n", "group"), [(1, 1), (5, 2), (5, 7), (12, 4), (3, 1)])
def test_one_bucket_is_the_order_of_a_run_without_buckets(n: int, group: int) -> None:
    plan = assign([(64, 64)] * n, [(64, 64)]).plan(group, 11, "class")
    for k in range(60):
        positions = [divmod(k * group + i, n) for i in range(group)]
        assert plan.group(k) == [(order(11, epoch, n, "class")[place], epoch) for epoch, place in positions]


def test_a_group_is_a_function_of_its_number() -> None:
    plan = planned((13, 1, 6, 2), 5)
    there = [plan.group(k) for k in range(200)]
    back = {k: plan.group(k) for k in random.Random(0).sample(range(200), 200)}
    assert [back[k] for k in range(200)] == there
    assert [planned((13, 1, 6, 2), 5).group(k) for k in (199, 0, 77)] == [there[k] for k in (199, 0, 77)]
    assert [planned((13, 1, 6, 2), 5, seed=4).group(k) for k in range(200)] != there
    assert plan == planned((13, 1, 6, 2), 5)


def test_buckets_take_turns_in_another_order_each_epoch() -> None:
    plan = planned((40, 30, 20, 10), 1)
    home = {index: b for b, members in enumerate(plan.members) for index in members}
    turns = [tuple(home[plan.group(100 * epoch + k)[0][0]] for k in range(100)) for epoch in range(20)]
    assert len(set(turns)) == 20 and all(Counter(t) == {0: 40, 1: 30, 2: 20, 3: 10} for t in turns)
    late = [sum(place for place, bucket in enumerate(t) if bucket == 3) / 10 for t in turns]
    assert 35 < sum(late) / len(late) < 65  # a small bucket has no place of its own


def test_millions_of_groups_in_are_as_near_as_the_first() -> None:
    plan = planned((500, 300, 100, 17), 4)
    assert plan.epoch(plan.before(12_345)) == 12_345 and plan.epoch(plan.before(12_346) - 1) == 12_345
    assert len({index for index, _ in plan.group(50_000_000)}) == 4
    large = Plan((tuple(range(900_000)), tuple(range(900_000, 1_000_000))), 8, 0, "instance")
    large.group(9_000_000)
    began = time.process_time()
    for k in range(9_000_000, 9_000_200):
        large.group(k)
    assert time.process_time() - began < 1.0  # 5 ms each would be far too much; measured 0.05


def test_an_empty_plan_is_refused() -> None:
    for members, group in (((), 1), (((),), 1), (((1,),), 0)):
        with pytest.raises(ConfigError, match="plan"):
            Plan(members, group, 0, "instance")
    assert Buckets((), ()).report() == []
