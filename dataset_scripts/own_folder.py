"""A folder of your own pictures -> checked, captioned, self-contained, and (if you like) on the Hub.

Why: one broken, sideways or uncaptioned picture is found by a trainer after an hour, or never. Here every picture is decoded in full and
turned upright, EXIF and GPS are removed, captions are found (metadata.jsonl, .csv, a .txt beside each picture) or given as one prompt
for all, and whatever is left out is named.

    python dataset_scripts/own_folder.py my_dog --prompt "a photo of sks dog" --out out/dog
    python dataset_scripts/own_folder.py paintings --on-bad-image skip --out out/paintings --push you/paintings --license cc-by-4.0
"""

import argparse
import sys
from pathlib import Path

from hf_diffusion_kit import load_captioned
from hf_diffusion_kit.errors import KitError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures, with metadata.jsonl or .csv, or .txt files beside them, or --prompt")
    parser.add_argument("--prompt", help="one caption for all pictures, where they have none")
    parser.add_argument("--min-side", type=int, help="leave out pictures with a side of fewer pixels, e.g. 512")
    parser.add_argument("--on-bad-image", choices=("error", "skip"), default="error", help="broken pictures (default: error)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new, empty, or holding the same")
    parser.add_argument("--push", metavar="USER/NAME", help="publish it as this dataset, private unless --public")
    parser.add_argument("--license", help="under which you publish the pictures, e.g. cc-by-4.0; without it nobody may use them")
    parser.add_argument("--hub", help="`local` for the embedded Hub, or an address (default: huggingface.co)")
    parser.add_argument("--public", action="store_true")
    args = parser.parse_args()

    data = load_captioned(args.folder, prompt=args.prompt, min_side=args.min_side, on_bad_image=args.on_bad_image, progress=True)
    print(f"{len(data)} pictures with {data.record.captions} captions")
    for reason, number in data.left_out.items():
        print(f"  left out: {reason}: {number}")
    for note in data.notes:
        print(f"  note: {note}")

    folder = data.save(args.out)
    print(f"written: {folder}; look at {folder / 'images' / 'sheet.png'}")
    if args.push:
        pushed = data.push_to_hub(args.push, hub=args.hub, private=not args.public, license=args.license)
        print(f"published: {pushed.repo_id}, commit {pushed.oid}")


if __name__ == "__main__":
    try:
        main()
    except KitError as error:  # one line that says what is wrong and what to do
        print(error.line(), file=sys.stderr)
        sys.exit(error.exit_code)
