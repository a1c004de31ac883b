"""Renders every record in `records/` to the card beside it: `make cards`. Look at the difference before you commit it."""

import json
from pathlib import Path

from hf_diffusion_kit.cards import RowFacts, dataset_card, model_card
from hf_diffusion_kit.cards.model_card import LOSS, PROGRESS
from hf_diffusion_kit.records import RunRecord, SubsetRecord, build

HERE = Path(__file__).parent


def main() -> None:
    for path in sorted(HERE.glob("records/*.json")):
        (HERE / f"{path.stem}.md").write_text(model(path.stem), encoding="utf-8")
        print(f"model_cards/{path.stem}.md")
    for path in sorted(HERE.glob("datasets/records/*.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        card = dataset_card(build(SubsetRecord, raw["record"]), build(RowFacts, raw["rows"]), raw["repo_id"])
        (HERE / "datasets" / f"{path.stem}.md").write_text(card, encoding="utf-8")
        print(f"model_cards/datasets/{path.stem}.md")


def model(name: str) -> str:
    """As if the run's pictures of its loss and progress lay beside it."""
    return model_card(RunRecord.load(HERE / "records" / f"{name}.json"), f"you/{name}", (LOSS, PROGRESS))


if __name__ == "__main__":
    main()
