"""hfseq recipes, and that what it claims is what the cards say."""

from __future__ import annotations

import json
import runpy

from hfseq.commands.recipes import first_sentence


def test_every_recipe_with_the_number_of_its_card(run, repository):
    printed = run("recipes")
    recipes = {path.stem for path in (repository / "hfseq/recipes").glob("*.yaml")}
    claims = json.loads((repository / "hfseq/recipes/claims.json").read_text())
    assert recipes and all(f"\n{name} " in f"\n{printed}" for name in recipes)
    assert printed.count("(test)") == len(recipes & claims.keys())
    assert "An LSTM on the King James Bible" in printed and "bits per byte 1.2539 (test)" in printed


def test_one_recipe_is_printed_to_be_copied(run, refused, repository):
    assert run("recipes", "lstm-kjv") == (repository / "hfseq/recipes/lstm-kjv.yaml").read_text()
    assert "Did you mean 'lstm-kjv'?" in refused("recipes", "lstm_kjv")


def test_the_claims_are_those_of_the_cards(repository):
    """python scripts/write_claims.py writes the file anew."""
    claims = json.loads((repository / "hfseq/recipes/claims.json").read_text())
    read_claims = runpy.run_path(str(repository / "scripts/write_claims.py"))["read_claims"]
    assert claims == read_claims(repository / "model_cards")
    for recipe, claim in claims.items():
        card = (repository / "model_cards" / recipe / "README.md").read_text()
        assert claim["value"] in card and claim["score"] in card, recipe


def test_a_sentence_ends_with_a_full_stop_before_a_capital():
    assert first_sentence("# After Vinyals et al. 2015, a net.\n# Another one.\ndata: 1\n") == (
        "After Vinyals et al. 2015, a net."
    )
    assert first_sentence("# no stop\ndata: 1\n") == "no stop"
    assert first_sentence("data: 1\n") == ""
