"""What the doctor found, and what to do about it, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .leaks import Leak


@dataclass(frozen=True)
class Fault:
    """Something that stops a training."""

    name: str
    """The picture, or the file of captions."""
    what: str
    """What it really is, or what is wrong with it."""
    fix: str = ""
    picture: bool = True
    """False for a file of captions: it has to be mended, for without it nothing can be chosen."""


@dataclass(frozen=True)
class Twin:
    """Two pictures of one set that look the same."""

    first: str
    second: str
    distance: int
    """Bits of 256 that differ; 0 where nothing but the file does."""


@dataclass(frozen=True)
class Cut:
    """A caption whose end the model would not read."""

    name: str
    tokens: int
    """Of the whole caption, with the two that begin and end it."""
    text: str
    """Its first 60 characters."""


@dataclass(frozen=True)
class Report:
    source: str
    pictures: int
    """Those that can be decoded to the last row."""
    captions: int
    sets: dict[str, int] = field(default_factory=dict)
    """Split -> its pictures, where there are several."""
    broken: tuple[Fault, ...] = ()
    """Pictures and files of captions that cannot be used."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> names: pictures without captions, captions without pictures, blank ones."""
    small: tuple[str, ...] = ()
    """Pictures with a side shorter than the training resolution; they would be enlarged."""
    resolution: int | None = None
    """Pixels that `small` was measured against; None when nobody asked."""
    same: tuple[tuple[str, ...], ...] = ()
    """Pictures that are the same, byte for byte."""
    twins: tuple[Twin, ...] = ()
    """Near-duplicates that are not the same bytes."""
    near: int = 0
    """Bits of 256 that may differ in `twins`."""
    leaks: tuple[Leak, ...] = ()
    """Pictures that two splits share, or this set and `against`."""
    against: str | None = None
    """The other set, by its name."""
    shared: dict[str, int] = field(default_factory=dict)
    """Captions that a quarter of the pictures or more have -> how many."""
    like_names: tuple[str, ...] = ()
    """Pictures whose caption is their file's name."""
    cut: tuple[Cut, ...] = ()
    """Captions that are longer than `tokens`."""
    tokens: int | None = None
    """What the model reads of a caption; None: captions were not counted, for no tokenizer was named."""
    smallest: tuple[int, int] = (0, 0)
    """Width and height of the picture with the fewest pixels."""
    largest: tuple[int, int] = (0, 0)
    modes: dict[str, int] = field(default_factory=dict)
    """Pillow's mode -> pictures: RGB, L (grey), P (palette), RGBA, CMYK, I;16 ..."""
    misnamed: tuple[str, ...] = ()
    """Pictures whose name ends like another format's."""
    remarks: dict[str, int] = field(default_factory=dict)
    """What is unusual and will be put right: turned, transparent, 16-bit, animated, grey, with EXIF."""
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """3 when something is broken or nothing is there; 0 otherwise, whatever else was found."""
        return 3 if self.broken or not self.pictures else 0

    @property
    def flawless(self) -> bool:
        found = (self.faults, self.small, self.same, self.twins, self.leaks, self.shared, self.like_names, self.cut)
        return not (self.exit_code or any(found))

    @property
    def advice(self) -> tuple[str, ...]:
        """One sentence for each kind of finding, with what to do."""
        return tuple(_advice(self))


def _advice(report: Report) -> Iterator[str]:
    total = report.pictures
    if report.broken:
        skip = "; --on-bad-image skip goes on without such pictures" if all(fault.picture for fault in report.broken) else ""
        yield f"{_count(report.broken, 'file')} cannot be used: mend or remove what is named above{skip}"
    for reason, names in report.faults.items():
        yield f"{reason}: {len(names)}; {FIXES.get(reason, 'mend them, or leave them: they are left out and counted')}"
    if report.small:
        yield (
            f"{len(report.small)} of {total} pictures are smaller than {report.resolution}: they would be enlarged; "
            f"remove them, train at less, or choose with --min-side {report.resolution}"
        )
    if report.same:
        extra = sum(len(names) - 1 for names in report.same)
        yield f"{extra} of {total} pictures are there once more, byte for byte: keep one of each, or it weighs double"
    if report.twins:
        yield f"{_count(report.twins, 'pair')} of pictures look the same: keep the better one of each, or they weigh double"
    if report.leaks:
        sets = f"this set and {report.against}" if report.against else " and ".join(report.sets)
        yield f"{_count(report.leaks, 'picture')} in more than one of {sets}: remove from one, or a test will flatter the model"
    if report.shared:
        text, number = next(iter(report.shared.items()))
        yield (
            f"{number} of {total} pictures have the caption {text[:60]!r}: it tells nothing of any one of them; "
            "write what each shows, or, if it is meant, give it as the one prompt (--prompt)"
        )
    if report.like_names:
        yield f"{_count(report.like_names, 'picture')} with the file's name for a caption: write what the picture shows"
    if report.cut:
        longest = max(cut.tokens for cut in report.cut)
        yield f"{_count(report.cut, 'caption')} longer than the model's {report.tokens} tokens (up to {longest}): shorten, the rest is never read"
    if report.misnamed:
        yield f"{_count(report.misnamed, 'picture')} named like another format: nothing to do here, other programs may stumble"


FIXES = {
    "files that are not JPEG, PNG, WebP or BMP": "convert them, or they are left out",
    "pictures without a caption": "write captions, or they are left out",
    "captions without a picture": "add the pictures or remove the lines; they are left out",
    "blank captions": "write them, or remove the lines",
    "caption files without a picture": "rename them like their picture, or remove them",
    "pictures that the annotations do not name": "describe them in the annotations, or they are left out",
    "pictures that no concept names": "name their folder in the list, or they are left out",
    "lines cut short that were left out, as asked (repair)": "complete the line to have its caption",
}


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"
