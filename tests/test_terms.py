"""What a base may be used for, and that its owners are asked first: on the Hub, without it, in an error and on a card."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hf_diffusion_kit.cards import front_matter
from hf_diffusion_kit.cards.model_card import model_card
from hf_diffusion_kit.cards.usual_bases import TERMS
from hf_diffusion_kit.errors import ModelError
from hf_diffusion_kit.families import detect
from hf_diffusion_kit.hub import pin as pinning
from hf_diffusion_kit.records import Pinned
from test_cards import bare

CARD = "---\nlicense: other\nlicense_name: a-license\nlicense_link: LICENSE.md\n---\n"
DEV = "black-forest-labs/FLUX.1-dev"


@pytest.fixture
def gated(hub: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A base behind a gate, on the only Hub that this process knows."""
    for name in ("huggingface_hub.constants.ENDPOINT", "huggingface_hub.hf_api.api.endpoint"):
        monkeypatch.setattr(name, hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo("you/gated", private=False)
    for name, content in {"README.md": CARD, "model_index.json": '{"_class_name": "FluxPipeline"}'}.items():
        api.upload_file(repo_id="you/gated", path_in_repo=name, path_or_fileobj=content.encode())
    api.update_repo_settings("you/gated", gated="auto")
    return "you/gated"


def test_a_gate_is_named_with_the_page_that_opens_it(gated: str) -> None:
    for ask in (pinning.pin, detect):
        with pytest.raises(ModelError) as told:
            ask(gated)
        line = told.value.line()
        assert "you/gated: is gated" in line and "\n" not in line
        assert f"accept the terms at https://huggingface.co/{gated}, then hf auth login" in line


def test_who_may_enter_is_told_the_terms_of_its_card(hub: Any, gated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    told = pinning.pin(gated)
    assert (told.license, told.license_name, told.gated) == ("other", "a-license", True)
    assert told.license_link == f"https://huggingface.co/{gated}/blob/main/LICENSE.md"


def test_what_is_known_of_the_usual_bases_stands_in_for_a_card_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers fetches no cards."""
    (tmp_path / "model_index.json").write_text("{}")
    monkeypatch.setattr(pinning, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "model_index.json"))
    told = pinning.from_cache(DEV, None)
    assert told and (told.license, told.license_name, told.gated) == ("other", "flux-1-dev-non-commercial-license", True)
    assert told.license_link == TERMS[DEV].link
    other = pinning.from_cache("you/unknown", None)
    assert other and (other.license, other.license_name, other.gated) == (None, None, False)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")  # a card goes before
    stated = pinning.from_cache(DEV, None)
    assert stated and (stated.license, stated.license_name, stated.license_link) == ("mit", None, None)


def test_a_card_names_the_licence_and_the_gate() -> None:
    known = TERMS[DEV]
    base = Pinned(DEV, license="other", on_hub=True, license_name=known.name, license_link=known.link, gated=True)
    card = model_card(bare(base_model=base), "you/x")
    told = front_matter.read(card)
    assert (told["license"], told["license_name"], told["license_link"]) == ("other", known.name, known.link)
    assert f"The licence is that of the base: [`{known.name}`]({known.link})." in card
    assert (
        f"The base is gated: whoever wants to load it accepts its terms at [{DEV}](https://huggingface.co/{DEV}) first." in card
    )
    free = model_card(bare(base_model=Pinned("o/free", license="apache-2.0", on_hub=True)), "you/x")
    assert "gated" not in free and "The licence is that of the base: `apache-2.0`." in free


@pytest.mark.parametrize("name", TERMS)
def test_terms_that_the_hub_has_no_id_for_have_a_name_and_a_link(name: str) -> None:
    terms = TERMS[name]
    assert name.count("/") == 1 and (terms.license == "other") == bool(terms.name) == bool(terms.link)
    assert terms.link is None or terms.link.startswith(f"https://huggingface.co/{name}/blob/main/LICENSE")
