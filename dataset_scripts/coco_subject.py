"""A handful of pictures of ONE subject out of COCO, fit for DreamBooth.

Why: DreamBooth binds a word to what a few pictures have in common. Pictures in which the subject is small, one of a crowd, or under a
licence that forbids changed copies spoil that, or may not be used; so this asks for one large object that is no crowd, on pictures that
may be changed and used commercially. COCO's dogs are different dogs: it teaches "a dog as in these pictures", not one dog; for your own
dog see own_folder.py.

    python dataset_scripts/coco_subject.py --coco COCO --subject dog --count 5 --out out/dog
"""

import argparse
import sys
from pathlib import Path

from hf_diffusion_kit import load_captioned
from hf_diffusion_kit.errors import KitError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco", type=Path, required=True, help="folder that holds annotations/ and the folders of pictures")
    parser.add_argument("--subject", required=True, help="one of COCO's 80 categories: dog, `teddy bear`, ...")
    parser.add_argument("--count", type=int, default=5, help="DreamBooth needs three to ten (default: 5)")
    parser.add_argument(
        "--min-area", type=float, default=0.15, help="share of the picture that the subject covers (default: 0.15)"
    )
    parser.add_argument("--license", nargs="*", default=["commercial", "modifiable"], help="nothing after it takes any licence")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new, empty, or holding the same")
    parser.add_argument("--push", metavar="USER/NAME", help="publish it as this dataset, private")
    parser.add_argument("--hub", help="`local` for the embedded Hub, or an address (default: huggingface.co)")
    args = parser.parse_args()

    data = load_captioned(
        "coco",
        annotations=args.coco / "annotations",
        images=args.coco,
        category=args.subject,
        min_area=args.min_area,
        crowd=False,
        license=args.license,
        count=args.count,
        seed=args.seed,
        progress=True,
    )
    print(f"{len(data)} pictures of one large {args.subject}:")
    for name, text, license in zip(*(data.dataset[column] for column in ("file_name", "text", "license")), strict=True):
        print(f"  {name}: {text} ({license})")

    folder = data.save(args.out)
    print(f"written: {folder}; look at {folder / 'images' / 'sheet.png'}")
    if args.push:
        pushed = data.push_to_hub(args.push, hub=args.hub)
        print(f"published: {pushed.repo_id}, commit {pushed.oid}")

    # DreamBooth wants two prompts: one with a rare word for the subject, one for its class, so that other dogs stay as they were.
    print("for training:")
    print(f"  instance prompt: a photo of sks {args.subject}")
    print(f"  class prompt:    a photo of a {args.subject}")


if __name__ == "__main__":
    try:
        main()
    except KitError as error:  # one line that says what is wrong and what to do
        print(error.line(), file=sys.stderr)
        sys.exit(error.exit_code)
