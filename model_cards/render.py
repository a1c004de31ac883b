"""Renders every record in `records/` to the card beside it: `make cards`. Look at the difference before you commit it."""

from pathlib import Path

from hf_diffusion_kit.cards import model_card
from hf_diffusion_kit.records import RunRecord

HERE = Path(__file__).parent


def main() -> None:
    for path in sorted(HERE.glob("records/*.json")):
        record = RunRecord.load(path)
        (HERE / f"{path.stem}.md").write_text(model_card(record, f"you/{path.stem}"), encoding="utf-8")
        print(f"model_cards/{path.stem}.md")


if __name__ == "__main__":
    main()
