"""What is done to a caption before the model is given it."""

from hf_diffusion_kit.data.captions import in_template, shuffled


def test_shuffled_tags_are_all_there_and_the_first_stay() -> None:
    caption = "sks dog, on grass,  running , blue sky, photo"
    tags = ["sks dog", "on grass", "running", "blue sky", "photo"]
    orders = set()
    for number in range(200):
        told = shuffled(caption, 1, number)
        assert sorted(told.split(", ")) == sorted(tags) and told.startswith("sks dog, ")
        assert told == shuffled(caption, 1, number)
        orders.add(told)
    assert len(orders) == 24  # all of 4!
    assert len({shuffled(caption, 0, number) for number in range(2000)}) == 120
    assert len({shuffled(caption, 3, number) for number in range(50)}) == 2


def test_with_nothing_to_shuffle_a_caption_is_as_it_was() -> None:
    for caption, keep in (("", 0), ("a dog on a mat.", 0), ("a,b", 2), ("a, b", 1), ("a ,b", 9), (",a,", 0), ("a\u0142b", 0)):
        assert shuffled(caption, keep, 5) == caption
    assert shuffled("a,,b,", 0, 0) in ("a, b", "b, a")  # empty tags are none


def test_a_template_takes_the_caption_as_it_is_and_leaves_an_empty_one_empty() -> None:
    assert in_template("a photo of {caption}, {style} {}", "a {caption} dog") == "a photo of a {caption} dog, {style} {}"
    assert in_template("{caption} and {caption}", "x") == "x and x"
    assert in_template("a photo of {caption}", "") == ""
