"""What the usual bases may be used for and whether their owners ask for consent, for when the Hub or their own cards cannot be asked.

What a base's own card says goes before. As it stood in the autumn of 2026; from the cards, LICENSE files and gates of the repositories
(FLUX.1 [schnell]: free by its licence, and yet behind a gate since April 2025).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    license: str
    """Licence id as the Hub lists them; `other` has a name and a link."""
    name: str | None = None
    link: str | None = None
    gated: bool = False
    """Whether nobody gets the weights who has not accepted the terms on the base's page."""


def stability(base: str) -> dict[str, Terms]:
    link = f"https://huggingface.co/stabilityai/{base}/blob/main/LICENSE.md"
    return {f"stabilityai/{base}": Terms("other", "stabilityai-ai-community", link, gated=True)}


def klein_9b(base: str) -> dict[str, Terms]:
    link = f"https://huggingface.co/black-forest-labs/{base}/blob/main/LICENSE.md"
    return {f"black-forest-labs/{base}": Terms("other", "flux-non-commercial-license", link, gated=True)}


def nvidia(base: str) -> dict[str, Terms]:
    link = f"https://huggingface.co/Efficient-Large-Model/{base}/blob/main/LICENSE.txt"
    return {f"Efficient-Large-Model/{base}": Terms("other", "nscl-v2-custom", link)}


FLUX_DEV = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md"
TERMS: dict[str, Terms] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": Terms("creativeml-openrail-m"),
    "stabilityai/stable-diffusion-xl-base-1.0": Terms("openrail++"),
    **stability("stable-diffusion-3-medium-diffusers"),
    **stability("stable-diffusion-3.5-medium"),
    **stability("stable-diffusion-3.5-large"),
    **stability("stable-diffusion-3.5-large-turbo"),
    "black-forest-labs/FLUX.1-dev": Terms("other", "flux-1-dev-non-commercial-license", FLUX_DEV, gated=True),
    "black-forest-labs/FLUX.1-schnell": Terms("apache-2.0", gated=True),
    "black-forest-labs/FLUX.2-klein-4B": Terms("apache-2.0"),
    "black-forest-labs/FLUX.2-klein-base-4B": Terms("apache-2.0"),
    **klein_9b("FLUX.2-klein-9B"),
    **klein_9b("FLUX.2-klein-base-9B"),
    "Tongyi-MAI/Z-Image-Turbo": Terms("apache-2.0"),
    "Tongyi-MAI/Z-Image": Terms("apache-2.0"),
    "Qwen/Qwen-Image": Terms("apache-2.0"),
    **nvidia("Sana_1600M_1024px_diffusers"),
    **nvidia("Sana_1600M_512px_diffusers"),
    **nvidia("SANA1.5_1.6B_1024px_diffusers"),
    "Alpha-VLLM/Lumina-Image-2.0": Terms("apache-2.0"),
    "fal/AuraFlow-v0.3": Terms("apache-2.0"),
}
"""Hub id -> its terms."""
