"""`pipeline("translation", model=...)`, for every `AutoModelForSeq2SeqLM`: transformers 5 removed its own.

The file imports nothing of hfseq, so that a saved pipeline can take it along. It registers itself when it is
loaded: `import hfseq` sees to it that this happens when somebody asks for pipelines (`registration.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

TASK = "translation"
# A translation longer than this times its source, and this many tokens, has run away: it is ended there.
LONGEST_FACTOR, LONGEST_EXTRA = 2, 10


class TranslationPipeline(Pipeline):
    """Translates texts with an encoder-decoder.

        translate = pipeline("translation", model="outputs/transformer-multi30k-en-de")
        translate("Two men walk.")  # [{"translation_text": "Zwei Männer gehen."}]
        translate(lines, batch_size=32, num_beams=5)

    Several languages in one model are told apart as its tokenizer has it (`tokenizer.src_lang = ...`) and by
    `forced_bos_token_id`.

    Args:
        target_tokenizer: decodes the translations, where that is another one than `tokenizer`; by default what stands
            in the folder `target_tokenizer` of a local checkpoint, where there is one.
        batch_size, num_workers, device and so on: as in every pipeline.
        truncation: cut sources that are longer than the model's positions; by default they are refused.
        special_tokens_in_text: special tokens that a source spells out (</s>, <mask>) are special; by default text.
        generate_options: arguments of `generate()`, over the model's generation_config, here or in a call. Where
            nothing says how long a translation may be, it ends at twice its batch's longest source plus ten tokens.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    # What `_sanitize_parameters` is given goes to generate() as it is, in every version of transformers.
    _pipeline_calls_generate = False

    def __init__(self, *args, target_tokenizer=None, **kwargs):
        super().__init__(*args, **kwargs)
        if not self.model.config.is_encoder_decoder:
            raise ValueError(
                f"{type(self.model).__name__} is no encoder-decoder: the task translation takes what "
                "AutoModelForSeq2SeqLM loads."
            )
        folder = Path(self.model.name_or_path) / "target_tokenizer"
        if target_tokenizer is None and folder.is_dir():
            target_tokenizer = AutoTokenizer.from_pretrained(folder)
        self.target_tokenizer = self.tokenizer if target_tokenizer is None else target_tokenizer

    def _sanitize_parameters(
        self,
        truncation: bool | None = None,
        special_tokens_in_text: bool | None = None,
        **generate_options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {"truncation": truncation, "special_tokens_in_text": special_tokens_in_text}
        preprocess = {name: value for name, value in given.items() if value is not None}
        return preprocess, generate_options, {}

    def __call__(self, texts: str | Sequence[str], **kwargs: Any) -> list[Any]:
        """Translates one text or several; blank ones stay empty.

        Returns:
            [{"translation_text": ...}], one for each text; with `num_return_sequences` above one (or texts from a
            generator) a list for each text, the best first.

        Raises:
            ValueError: a source has more tokens than the model positions; TypeError: something that is no text.
        """
        result = super().__call__(texts, **kwargs)
        several = isinstance(texts, (list, tuple))
        return [of_text[0] for of_text in result] if several and all(len(r) == 1 for r in result) else result

    def preprocess(
        self, text: str, truncation: bool = False, special_tokens_in_text: bool = False
    ) -> dict[str, Any]:
        if not isinstance(text, str):
            raise TypeError(f"A translation is made of a text, not of {text!r} ({type(text).__name__}).")
        blank = not text.strip()
        tokenizer = self.tokenizer
        # Something must stand in a blank text's row; nobody reads what comes of it.
        text = tokenizer.eos_token or tokenizer.pad_token if blank else text
        positions = getattr(self.model.config, "max_position_embeddings", None)
        limit = {"truncation": True, "max_length": positions} if truncation and positions else {}
        # A special token that the text spells out is text, as it was in training.
        as_text = {"split_special_tokens": not special_tokens_in_text}
        encoded = tokenizer(text, return_tensors="pt", **as_text, **limit)
        length = encoded["input_ids"].shape[1]
        if positions is not None and length > positions:
            raise ValueError(
                f"The source has {length} tokens, the model only {positions} positions (max_position_embeddings): "
                f"split it into sentences, or pass truncation=True. It begins: {text[:60]!r}"
            )
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "blank": blank,
        }

    def _forward(self, inputs: dict[str, Any], **generate_options: Any) -> dict[str, Any]:
        ids = inputs["input_ids"]  # [batch, longest]
        bound = {} if self._says_how_long(generate_options) else {"max_length": self._longest(ids.shape[1])}
        output = self.model.generate(
            input_ids=ids, attention_mask=inputs["attention_mask"], **bound, **generate_options
        )
        if not isinstance(output, type(ids)):  # return_dict_in_generate
            output = output.sequences
        # [batch, translations of each, longest]: the base class takes batches apart by their first axis
        return {"output_ids": output.unflatten(0, (len(ids), -1)), "blank": inputs["blank"]}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, str]]:
        decoded = self.target_tokenizer.batch_decode(outputs["output_ids"][0], skip_special_tokens=True)
        return [{"translation_text": "" if outputs["blank"] else text} for text in decoded]

    def _says_how_long(self, options: dict[str, Any]) -> bool:
        if "generation_config" in options or options.get("max_length") or options.get("max_new_tokens"):
            return True
        config = self.model.generation_config
        return bool(config.max_length or config.max_new_tokens)

    def _longest(self, source_length: int) -> int:
        longest = LONGEST_FACTOR * source_length + LONGEST_EXTRA
        return min(longest, getattr(self.model.config, "max_position_embeddings", None) or longest)


def register() -> None:
    """Makes `pipeline("translation")` find the class above, unless there is such a task already."""
    from transformers import pipelines

    if TASK in PIPELINE_REGISTRY.get_supported_tasks():
        return
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=TranslationPipeline, pt_model=AutoModelForSeq2SeqLM, type="text"
    )
    # Newer versions of transformers refuse the tasks that they once had before they look among the registered.
    getattr(pipelines, "REMOVED_TASKS", {}).pop(TASK, None)


register()

__all__ = ["TranslationPipeline", "register"]
