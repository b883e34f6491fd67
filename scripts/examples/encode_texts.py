"""Vectors of texts by any encoder of transformers, as a table that a vector-to-sequence model learns from.

    python scripts/examples/encode_texts.py sentence-transformers/all-MiniLM-L6-v2 captions.en table.jsonl
    hfseq pretrain lstm-colours --corpus null --train_file table.jsonl \\
        --feature_columns vector --prompt null --output_dir outputs/lstm-captions

The LSTM then writes a sentence from its vector. With --targets (a line for each text) it learns to write something else
from it, a translation or a summary. Images go the same way: replace `encode` by an image encoder's pooled output, and
let the texts be captions.
"""

from __future__ import annotations

import argparse
import json

import torch
from transformers import AutoModel, AutoTokenizer

from hfseq.commands.console import model_id, path, print_what_the_terminal_can
from hfseq.commands.outputs import check_output_file
from hfseq.data.files import lines_of
from hfseq.loading import load_model


def main() -> None:
    print_what_the_terminal_can()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", type=model_id, help="a directory or Hub id that AutoModel loads")
    parser.add_argument("texts", type=path, help="one text per line, also .gz")
    parser.add_argument("table", type=path, help="the .jsonl file to write: text and vector in every line")
    parser.add_argument(
        "--targets", type=path, help="what is to be written from each vector; default: the text"
    )
    parser.add_argument("--batch_size", type=int, default=64)
    arguments = parser.parse_args()
    try:
        check_output_file(arguments.table, "TABLE")
        texts = [line.strip() for _, line in lines_of(arguments.texts)]
        targets = [line.strip() for _, line in lines_of(arguments.targets)] if arguments.targets else texts
        if len(texts) != len(targets):
            raise ValueError(f"{arguments.texts} has {len(texts)} lines, {arguments.targets} {len(targets)}.")
        tokenizer = AutoTokenizer.from_pretrained(arguments.encoder)
        model = load_model(AutoModel, arguments.encoder, allow_new_head=True)  # a pooler, say: not used
    except (OSError, ValueError) as error:
        parser.error(str(error))
    written = 0
    with open(arguments.table, "w", encoding="utf-8") as file:
        for first in range(0, len(texts), arguments.batch_size):
            vectors = encode(model, tokenizer, texts[first : first + arguments.batch_size])
            for target, vector in zip(targets[first:], vectors.tolist(), strict=False):
                if target:  # a text that is not there cannot be learnt
                    numbers = [round(number, 4) for number in vector]
                    file.write(json.dumps({"text": target, "vector": numbers}, ensure_ascii=False) + "\n")
                    written += 1
    print(f"{written:,} texts with vectors of {model.config.hidden_size} numbers: {arguments.table}")


@torch.inference_mode()
def encode(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """The mean over each text's tokens, as sentence encoders have it: [texts, width], numbers of about -1 to 1."""
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    hidden = model(**inputs).last_hidden_state  # [texts, time, width]
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean) * mean.shape[-1] ** 0.5


if __name__ == "__main__":
    main()
