"""Before hours of training: everything that would stop the push at the end is found by asking, and nothing is changed."""

from typing import Any

import pytest

from hf_diffusion_kit.errors import HubError
from hf_diffusion_kit.hub.door import Door
from hf_diffusion_kit.hub.local import LocalHub
from hf_diffusion_kit.hub.preflight import check_rights, preflight
from hf_diffusion_kit.testing import Fault, once

CARD = {"license": "apache-2.0", "library_name": "diffusers"}


def test_a_new_and_an_existing_repository(hub: LocalHub) -> None:
    new = preflight(hub.door, "you/x", card_metadata=CARD)
    assert (new.user, new.exists, new.private, new.head) == ("you", False, True, None)
    assert all(line.startswith("GET") for line in hub.requests)
    hub.door.api.create_repo("you/x", private=True)
    there = preflight(hub.door, "you/x", private=False)
    assert (there.exists, there.private, there.head) == (True, True, hub.door.api.repo_info("you/x").sha)


def test_a_public_repository_is_refused_when_private_was_asked_for(hub: LocalHub) -> None:
    hub.door.api.create_repo("you/x", private=False)
    with pytest.raises(HubError, match="is public"):
        preflight(hub.door, "you/x")
    assert not preflight(hub.door, "you/x", private=False).private


def test_tokens(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for token, words in ((hub.read_token, "may only read"), ("hf_" + "x" * 34, "401")):
        with pytest.raises(HubError, match=words) as refused:
            preflight(Door(hub.endpoint, token), "you/x")
        assert token[3:11] not in str(refused.value)
    with pytest.raises(HubError, match=r"no token to push with.*hf auth login"):
        preflight(Door(hub.endpoint), "you/x")


@pytest.mark.parametrize("name", ["x", "you/", "you/x/y", "you/a b", "./runs/x", "you/x--y", "you/x.git", ""])
def test_names_that_cannot_be(name: str, hub: LocalHub) -> None:
    with pytest.raises(HubError, match="not the name of a repository"):
        preflight(hub.door, name)
    assert not hub.requests


def test_other_namespaces_and_kinds(hub: LocalHub) -> None:
    with pytest.raises(HubError, match=r"you may not write under 'me'.*use one of: you"):
        preflight(hub.door, "me/x")
    with pytest.raises(HubError, match="a 'space' cannot be pushed"):
        preflight(hub.door, "you/x", repo_type="space")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "license: there is none"),
        ({"license": "my licence"}, "not a licence id"),
        ({**CARD, "base_model": "/home/me/sd15"}, "base_model: '/home/me/sd15' is not a Hub id"),
        ({**CARD, "datasets": ["./data"]}, "datasets: './data' is not a Hub id"),
        ({**CARD, "tags": "lora"}, "tags: must be a list"),
        ({**CARD, "widget": ["a cat"]}, "widget: must be a list"),
        ({**CARD, "base_model_relation": "child"}, "base_model_relation"),
        ({**CARD, "pipeline_tag": 3}, "pipeline_tag: must be a text"),
    ],
)
def test_cards_that_the_hub_would_refuse(metadata: dict[str, Any], words: str, hub: LocalHub) -> None:
    with pytest.raises(HubError) as refused:
        preflight(hub.door, "you/x", card_metadata=metadata)
    assert words in str(refused.value)
    assert not hub.requests


def test_organisations_and_fine_grained_tokens() -> None:
    who: dict[str, Any] = {"name": "you", "orgs": [{"name": "lab", "roleInOrg": "write"}, {"name": "club", "roleInOrg": "read"}]}
    check_rights(who, "lab/x")
    with pytest.raises(HubError, match=r"use one of: you, lab\.$"):
        check_rights(who, "club/x")
    scope = {"entity": {"name": "you/x"}, "permissions": ["repo.write"]}
    fine = {**who, "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}}}
    check_rights(fine, "you/x")
    with pytest.raises(HubError, match="may only read"):
        check_rights(fine, "you/y")


def test_a_hub_that_stumbles_is_asked_again_and_a_dead_one_is_named(hub: LocalHub) -> None:
    hub.set_faults(once("GET", "/api/whoami-v2", Fault(503)))
    assert preflight(Door(hub.endpoint, hub.token, pause=0.001), "you/x").user == "you"
    with pytest.raises(HubError, match=r"could not be checked.*nothing was begun"):
        preflight(Door("http://127.0.0.1:9", hub.token, pause=0.001), "you/x")


def test_offline_is_said_at_once(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        preflight(Door(hub.endpoint, hub.token, pause=60), "you/x")  # a second try would outlast this test
