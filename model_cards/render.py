"""Renders every record in `records/` to the card beside it: `make cards`. Look at the difference before you commit it."""

import json
from pathlib import Path

from hf_diffusion_kit.cards import RowFacts, dataset_card, model_card
from hf_diffusion_kit.records import RunRecord, SubsetRecord, build

HERE = Path(__file__).parent


def main() -> None:
    for path in sorted(HERE.glob("records/*.json")):
        record = RunRecord.load(path)
        (HERE / f"{path.stem}.md").write_text(model_card(record, f"you/{path.stem}"), encoding="utf-8")
        print(f"model_cards/{path.stem}.md")
    for path in sorted(HERE.glob("datasets/records/*.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        card = dataset_card(build(SubsetRecord, raw["record"]), build(RowFacts, raw["rows"]), raw["repo_id"])
        (HERE / "datasets" / f"{path.stem}.md").write_text(card, encoding="utf-8")
        print(f"model_cards/datasets/{path.stem}.md")


if __name__ == "__main__":
    main()
