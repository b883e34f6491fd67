"""The five kinds of pretraining, as their cards speak of them."""

from __future__ import annotations

from .card_text import CardText

LANGUAGE_MODEL = CardText(
    pipeline="text-generation",
    tag="language-modeling",
    metrics={
        "perplexity_per_token": ("perplexity per token", ".2f"),
        "perplexity_per_word": ("per word", ".1f"),
        "bits_per_byte": ("bits per byte", ".4f"),
    },
    note="Perplexity per token depends on the tokenizer. Perplexity per word and bits per byte spread the same total "
    "over the white-space separated words and the UTF-8 bytes of the text, so models with other tokenizers compare.",
    sizes=("tokens", "words", "bytes"),
    metric="perplexity",
    usage="""from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
inputs = tokenizer({prompt}, return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=50, do_sample=True, temperature=0.7)
print(tokenizer.decode(ids[0], skip_special_tokens=True))""",
    claim="bits_per_byte",
)
MASKED_LANGUAGE_MODEL = CardText(
    pipeline="fill-mask",
    tag="masked-language-modeling",
    metrics={"perplexity": ("perplexity of masked tokens", ".2f"), "accuracy": ("accuracy", ".4f")},
    note="15% of the tokens are to be guessed (80% of them masked, 10% replaced, 10% left), the same ones at every "
    "evaluation, whatever the masking in training. The perplexity depends on the tokenizer.",
    sizes=("targets", "tokens"),
    metric="perplexity",
    usage="""from transformers import pipeline

path = {path}  # this repository's id, or the directory
fill = pipeline("fill-mask", model=path, trust_remote_code=True)
for guess in fill({prompt}):
    print(f"{{guess['score']:.3f}}  {{guess['sequence']}}")""",
)
TRANSLATION = CardText(
    pipeline="translation",
    tag="machine-translation",
    metrics={
        "tokenized_bleu": ("tokenised BLEU", ".2f"),
        "bleu": ("sacreBLEU", ".2f"),
        "bleu_lowercase": ("sacreBLEU, lower-cased", ".2f"),
        "chrf": ("chrF", ".2f"),
        "perplexity": ("perplexity per token", ".2f"),
    },
    note="Only BLEU with the same signature compares. Perplexity is that of the reference's tokens, and depends on the "
    "tokenizer.",
    sizes=("sentences", "tokens"),
    metric="bleu",
    usage="""from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True)
inputs = tokenizer([{prompt}], return_tensors="pt", padding=True)
ids = model.generate(**inputs)  # beams and longest output as in generation_config.json
print(tokenizer.batch_decode(ids, skip_special_tokens=True))""",
)
DENOISING = CardText(
    pipeline="text2text-generation",
    tag="denoising",
    metrics={"perplexity": ("perplexity per target token", ".2f")},
    note="The text is damaged in the same way at every evaluation. The perplexity depends on the tokenizer, and on "
    "what the targets are: only what was taken away (spans) or the whole text (infilling).",
    sizes=("tokens",),
    metric="perplexity",
    usage="""from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True)
ids = model.generate(**tokenizer({prompt}, return_tensors="pt"))
print(tokenizer.decode(ids[0]))""",
)
VECTOR_TO_TEXT = CardText(
    pipeline="text-generation",
    tag="vector-to-sequence",
    metrics={
        "perplexity_per_token": ("perplexity per token", ".2f"),
        "perplexity_permuted": ("with the vectors of other texts", ".2f"),
        "bits_per_text": ("bits per text", ".2f"),
        "bits_per_byte": ("bits per byte", ".4f"),
    },
    note="Of held-out texts given their vectors. With the vectors of other texts, each text has another one's: what "
    "the model gains by the right ones. Perplexity per token depends on the tokenizer, bits per text and byte do not.",
    sizes=("texts", "tokens", "bytes"),
    metric="perplexity",
    usage="""import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
features = torch.rand(2, model.config.feature_size)  # a vector for each text
begin = torch.full((2, 1), tokenizer.eos_token_id)
ids = model.generate(begin, features=features, max_new_tokens=20, do_sample=True, temperature=0.7)
print(tokenizer.batch_decode(ids, skip_special_tokens=True))""",
)
TASKS = {task.pipeline: task for task in (LANGUAGE_MODEL, MASKED_LANGUAGE_MODEL, TRANSLATION, DENOISING)}
TASKS["vector-to-text"] = VECTOR_TO_TEXT

__all__ = ["TASKS"]
