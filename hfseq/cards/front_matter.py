"""The YAML on top of a card, which the Hub indexes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import huggingface_hub

from .card_text import CardText
from .markdown import finite


def front_matter(facts: Mapping[str, Any], text: CardText, corpus: Mapping[str, Any]) -> str:
    """The YAML that the Hub indexes; the model-index in the Hub library's own words."""
    results = [
        huggingface_hub.EvalResult(
            task_type=text.pipeline,
            dataset_type=corpus.get("hub_ids", [corpus["id"]])[0],
            dataset_name=corpus["name"],
            dataset_split=split,
            metric_type=metric,
            metric_name=name,
            metric_value=finite(values[metric], f"scores.{split}.{metric}"),
        )
        for split, values in facts["scores"].items()
        for metric, (name, _) in text.metrics.items()
        if metric in values
    ]
    data = huggingface_hub.ModelCardData(
        model_name=facts["recipe"],
        eval_results=results,
        library_name="transformers",
        pipeline_tag=text.pipeline,
        language=corpus.get("language"),
        license=corpus.get("license"),
        license_name="terms-of-the-training-data" if corpus.get("license") == "other" else None,
        license_link=corpus.get("license_link"),
        datasets=corpus.get("hub_ids"),
        metrics=[text.metric],
        tags=[
            "hfseq",
            facts["recipe_content"]["model"]["model_type"].removeprefix("hfseq_"),
            text.tag,
        ],
    )
    return data.to_yaml() + "\n"


__all__ = ["front_matter"]
