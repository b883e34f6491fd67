"""Any architecture of transformers learns by any objective that it has a head for: `hfseq pretrain` on a small text."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hfseq.commands import pretrain as command
from hfseq.objectives import load_recipe, objective_of
from hfseq.training.exact_loss import summed_loss

TINY = {
    "gpt2": "{n_embd: 16, n_layer: 1, n_head: 2, n_positions: 64}",
    "llama": "{hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " max_position_embeddings: 64}",
    "mamba": "{hidden_size: 16, num_hidden_layers: 1, state_size: 4}",
    "bert": "{hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " max_position_embeddings: 64}",
    "modernbert": "{hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " max_position_embeddings: 64}",
    "marian": "{d_model: 16, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,"
    " decoder_attention_heads: 2, encoder_ffn_dim: 16, decoder_ffn_dim: 16, max_position_embeddings: 64}",
    "qwen2": "{hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " num_key_value_heads: 2, max_position_embeddings: 64}",
    "roberta": "{hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " max_position_embeddings: 34}",
    "t5": "{d_model: 16, d_kv: 8, d_ff: 16, num_layers: 1, num_heads: 2}",
    "bart": "{d_model: 16, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,"
    " decoder_attention_heads: 2, encoder_ffn_dim: 16, decoder_ffn_dim: 16, max_position_embeddings: 64}",
}
OBJECTIVES = {
    "causal": "{type: causal, row_length: 32, tokens_per_update: 256}",
    "masked": "{type: masked, row_length: 32, tokens_per_update: 256}",
    "denoising": "{type: denoising, row_length: 32, tokens_per_update: 256, sentinels: 20}",
    "translation": "{type: translation, tokens_per_update: 256, translated_sentences: 2, num_beams: 1}",
}
PROMPTS = {"causal": "And king", "masked": "And king [MASK]", "denoising": "And king <extra_id_0> 7"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    documents = [
        "\n".join(f"And king {n} reigned {year} years in the city of {n * year % 7}." for year in range(1, 8))
        for n in range(40)
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    lines = [f"the {n} dogs of {n % 7}\tdie {n} Hunde von {n % 7}\n" for n in range(120)]
    (tmp_path / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115
    return tmp_path


def write_recipe(folder, objective: str, model_type: str, **changes: str) -> str:
    """A recipe of that objective for a tiny model; `changes` replace sections."""
    sections = {
        "data": "{train_file: %s, validation_share: 0.1, test_share: 0.1, cache_dir: cache}"
        % ("pairs.tsv" if objective == "translation" else "text.txt"),
        "tokenizer": "{type: %s, vocab_size: 340}" % ("wordpiece" if objective == "masked" else "bpe"),
        "objective": OBJECTIVES[objective],
        "model": f"{{model_type: {model_type}, {TINY[model_type][1:]}",
        "training": "{output_dir: out, max_steps: 20, num_train_epochs: 30, learning_rate: 3e-3, eval_steps: 0.5%s}"
        % (f', prompt: "{PROMPTS[objective]}"' if objective in PROMPTS else ""),
        **changes,
    }
    (folder / "recipe.yaml").write_text("".join(f"{name}: {text}\n" for name, text in sections.items()))
    return "./recipe.yaml"


@pytest.mark.parametrize(
    ("objective", "model_type"),
    [
        ("causal", "gpt2"), ("causal", "llama"), ("causal", "mamba"), ("masked", "bert"), ("masked", "modernbert"),
        ("translation", "marian"), ("translation", "t5"), ("denoising", "t5"), ("denoising", "bart"),
    ],
)  # fmt: skip
def test_twenty_updates(folder, objective, model_type):
    command.main([write_recipe(folder, objective, model_type)])
    summary = json.loads((folder / "out/training_summary.json").read_text())
    first, last = summary["evaluations"][0]["eval_loss"], summary["evaluations"][-1]["eval_loss"]
    assert summary["updates"] == 20 and last < first
    # What Trainer measured while training is what is measured exactly at the end.
    assert summary["scores"]["validation"]["loss"] == pytest.approx(last, rel=0.02)
    assert (folder / "out/README.md").is_file()


@pytest.mark.parametrize(
    ("objective", "model_type"), [("causal", "gpt2"), ("masked", "bert"), ("denoising", "bart")]
)
def test_accumulation_changes_nothing(folder, objective, model_type):
    """BERT and BART ignore num_items_in_batch: their loss is computed from the logits, and that is said."""
    dropout = {"gpt2": "resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0",
               "bert": "hidden_dropout_prob: 0, attention_probs_dropout_prob: 0",
               "bart": "dropout: 0"}[model_type]  # fmt: skip
    model = f"{{model_type: {model_type}, {dropout}, {TINY[model_type][1:]}"
    weights = []
    for number, steps in enumerate(("1", "4")):
        recipe = write_recipe(folder, objective, model_type, model=model)
        words = ["--gradient_accumulation_steps", steps, "--output_dir", f"out{number}", "--max_steps", "4"]
        command.main([recipe, *words, "--optimizer", "adamw", "--adam_epsilon", "1e-3"])
        weights.append(load_file(folder / f"out{number}/model.safetensors"))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=2e-6, rtol=1e-4)


class TestPackedRows:
    @pytest.mark.parametrize("model_type", ["llama", "gpt2"])
    def test_models_that_keep_documents_apart(self, folder, model_type):
        """In evaluation mode the loss of a packed row is that of its documents, each alone."""
        words = ["--packing", "documents", "--max_steps", "2"]
        command.main([write_recipe(folder, "causal", model_type), *words])
        objective = objective_of(load_recipe("./recipe.yaml", words))
        objective.prepare()
        model = AutoModelForCausalLM.from_pretrained("out").eval()
        plan = objective.plan(model.config, 1)
        batch = plan.collator([plan.train[0]])
        packed = summed_loss(model, batch, honours=True, shifts=True)
        starts = (batch["position_ids"].flatten() == 0).nonzero().flatten().tolist()
        ids, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
        alone = torch.zeros((), dtype=torch.float64)
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            part = {"input_ids": ids[None, start:end], "labels": labels[None, start:end]}
            if (part["labels"][0, 1:] != -100).any():
                alone += summed_loss(model, part, honours=True, shifts=True).detach()
        assert len(starts) > len(batch["input_ids"])  # several documents in a row
        torch.testing.assert_close(packed.detach(), alone, rtol=1e-5, atol=0)

    @pytest.mark.parametrize(
        ("objective", "model_type"), [("causal", "mamba"), ("masked", "bert"), ("masked", "modernbert")]
    )
    def test_models_that_leak_are_refused_before_anything_is_read(self, folder, objective, model_type):
        (folder / "text.txt").unlink()
        match = r"packing.*documents.*apart.*blocks|takes no packed rows"
        with pytest.raises(SystemExit, match=match) as raised:
            command.main([write_recipe(folder, objective, model_type), "--packing", "documents"])
        assert raised.value.code == 2 and not (folder / "out").exists()


class TestReading:
    def test_a_model_that_looks_ahead_is_refused(self, folder):
        """BERT has a causal head, and without is_decoder sees the token that it is to predict."""
        recipe = write_recipe(folder, "causal", "bert")
        with pytest.raises(
            SystemExit, match=r"does not see the tokens to come.*Set model.is_decoder"
        ) as raised:
            command.main([recipe])
        assert raised.value.code == 2 and not (folder / "out").exists()
        command.main([recipe, "--is_decoder", "true", "--max_steps", "2"])
        assert (folder / "out/README.md").is_file()

    def test_roberta_has_fewer_positions_than_its_config_says(self, folder):
        """Rows of 32 tokens fit into 34 positions and its padding's row into none of them."""
        command.main([write_recipe(folder, "masked", "roberta"), "--max_steps", "2"])
        assert json.loads((folder / "out/tokenizer_config.json").read_text())["model_max_length"] == 33
        with pytest.raises(SystemExit, match=r"longer than the model's 32 positions"):
            command.main(["./recipe.yaml", "--row_length", "34", "--output_dir", "other"])

    def test_what_a_model_cannot_be_built_with(self, folder):
        with pytest.raises(SystemExit, match=r"section model: no gpt2 can be built.*ZeroDivisionError"):
            command.main([write_recipe(folder, "causal", "gpt2"), "--n_head", "0"])
        assert not (folder / "out").exists()


def test_a_prompt_is_continued_as_far_as_there_are_positions(folder):
    prompt = (
        "And king 7 reigned 3 years in the city of 5. And king 8"  # with 60 more tokens it is longer than 64
    )
    command.main([write_recipe(folder, "causal", "gpt2"), "--max_steps", "2", "--prompt", prompt])
    assert json.loads((folder / "out/training_summary.json").read_text())["continuation"].startswith(prompt)
    with pytest.raises(SystemExit, match="too many for a model with 64 positions"):
        command.main(["./recipe.yaml", "--output_dir", "other", "--prompt", "And king " * 40])
    assert not (folder / "other").exists()


class TestRefused:
    @pytest.mark.parametrize(
        ("objective", "model_type", "message"),
        [
            ("causal", "t5", "AutoModelForCausalLM, and model_type t5 has none"),
            ("masked", "gpt2", "AutoModelForMaskedLM, and model_type gpt2 has none"),
            ("translation", "llama", "AutoModelForSeq2SeqLM, and model_type llama has none"),
        ],
    )
    def test_models_without_the_head(self, folder, capsys, objective, model_type, message):
        with pytest.raises(SystemExit):
            command.main([write_recipe(folder, objective, model_type)])
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("objective", "model_type", "words", "message"),
        [
            ("causal", "gpt2", ["--mask_rate", "0.3"], "that is a field of objective masked"),
            ("causal", "gpt2", ["--streams", "8"], "that is a field of objective causal with other models"),
            ("masked", "bert", ["--segment_length", "8"], "that is a field of objective causal"),
            ("causal", "gpt2", ["--data.source_language", "en"], "that is a field of objective translation"),
            (
                "causal",
                "gpt2",
                ["--tokenizer.vocabulary", "joint"],
                "that is a field of objective translation",
            ),
            ("causal", "gpt2", ["--type", "bpe"], "write --tokenizer.type or --objective.type"),
            ("causal", "gpt2", ["--objective.type", "casual"], "Did you mean 'causal'"),
            ("causal", "gpt2", ["--model_type", "gpt2x"], "Did you mean 'gpt2'"),
            ("causal", "gpt2", ["--model_type", "[gpt2]"], "must be a name such as hfseq_lstm"),
            ("causal", "gpt2", ["--row_length", "65"], "longer than the model's 64 positions"),
            (
                "causal",
                "gpt2",
                ["--gradient_accumulation_steps", "0"],
                "gradient_accumulation_steps must be above 0, not 0",
            ),
            ("causal", "gpt2", ["--num_train_epochs", "-1"], "num_train_epochs must be above 0, not -1"),
            ("causal", "gpt2", ["--seed", "-3"], "seed must be 0 or more, not -3"),
            ("causal", "gpt2", ["--learning_rate", "fast"], "learning_rate"),
            ("causal", "gpt2", ["--learning_rate", "-1"], "learning_rate"),
        ],
    )
    def test_fields_and_values(self, folder, capsys, objective, model_type, words, message):
        with pytest.raises(SystemExit) as raised:
            command.main([write_recipe(folder, objective, model_type), *words])
        assert message in f"{raised.value} {capsys.readouterr().err}"
        assert not list(folder.glob("out/checkpoint-*"))

    def test_an_old_recipe_is_answered_with_its_new_form(self, folder, capsys):
        old = "data: {train_file: text.txt, tokenizer_vocab_size: 340, streams: 4, segment_length: 16}\n"
        old += "model: {model_type: hfseq_lstm, hidden_size: 16}\ntraining: {output_dir: out, max_steps: 2}\n"
        (folder / "old.yaml").write_text(old)
        with pytest.raises(SystemExit):
            command.main(["./old.yaml"])
        message = capsys.readouterr().err
        new = message[message.index("data:") :]
        (folder / "new.yaml").write_text(new)
        command.main(["./new.yaml", "--cache_dir", "cache", "--validation_share", "0.1"])
        saved = (folder / "out/recipe.yaml").read_text()
        assert "type: causal" in saved and "streams: 4" in saved and "vocab_size: 340" in saved
