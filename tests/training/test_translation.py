"""Translating in batches, and BLEU during a training, on models of a few weights."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.utils.data import Dataset
from transformers import (
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hfseq import TransformerConfig, TransformerForSeq2SeqLM
from hfseq.data import WholeBatchCollator
from hfseq.training import TranslationEvaluation, score_rows, score_translation, translate

WORDS = list("abcdefghijklmnopqrst")
SENTENCES = [" ".join(WORDS[i : i + 3 + i % 5]) for i in range(14)]


@pytest.fixture(scope="module")
def tokenizer():
    """Words; </s> behind every text."""
    ids = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


class Echo:
    """Generates its source again, and remembers what it was asked."""

    def __init__(self, max_length=None, num_beams=None):
        self.config = SimpleNamespace(max_position_embeddings=12)
        self.generation_config = SimpleNamespace(max_length=max_length, num_beams=num_beams)
        self.device = torch.device("cpu")
        self.training = True
        self.calls = []

    def eval(self):
        self.training = False

    def train(self, mode=True):
        self.training = mode

    def generate(self, input_ids, attention_mask, **options):
        assert not self.training
        assert torch.equal(attention_mask, (input_ids != 0).long())
        self.calls.append((tuple(input_ids.shape), options))
        return input_ids


def tiny_model(**fields):
    set_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 24}
    return TransformerForSeq2SeqLM(TransformerConfig(**{**sizes, "max_position_embeddings": 12, **fields}))


class TestTranslate:
    def test_order_is_kept_and_the_mode(self, tokenizer):
        model = Echo()
        assert translate(model, tokenizer, SENTENCES, batch_tokens=30) == SENTENCES
        assert model.training
        assert len(model.calls) > 1

    def test_batches_hold_similar_lengths_within_the_budget(self, tokenizer):
        model = Echo()
        translate(model, tokenizer, SENTENCES, batch_tokens=30)
        shapes = [shape for shape, _ in model.calls]
        assert all(rows * time <= 30 for rows, time in shapes)
        assert [time for _, time in shapes] == sorted((time for _, time in shapes), reverse=True)
        assert sum(rows for rows, _ in shapes) == len(SENTENCES)

    @pytest.mark.parametrize("model", [Echo(num_beams=5), Echo()], ids=["config", "option"])
    def test_beams_count_in_the_budget(self, tokenizer, model):
        options = {} if model.generation_config.num_beams else {"num_beams": 5}
        translate(model, tokenizer, SENTENCES, batch_tokens=60, **options)
        assert all(rows * time <= 12 for (rows, time), _ in model.calls)

    def test_one_sentence_is_always_a_batch(self, tokenizer):
        assert translate(Echo(), tokenizer, SENTENCES, batch_tokens=1) == SENTENCES

    def test_empty_lines_stay_empty(self, tokenizer):
        model = Echo()
        assert translate(model, tokenizer, ["", "a b", "  "]) == ["", "a b", ""]
        assert model.calls[0][0] == (1, 3)
        assert translate(Echo(), tokenizer, []) == []

    def test_what_runs_away_is_ended(self, tokenizer):
        model = Echo()
        model.config.max_position_embeddings = 100
        translate(model, tokenizer, ["a b c d"])
        assert model.calls[0][1] == {"max_length": 20}
        translate(model, tokenizer, ["a b c d"], max_new_tokens=7)
        assert model.calls[1][1] == {"max_new_tokens": 7}
        model.generation_config.max_length = 15
        translate(model, tokenizer, ["a b c d"])
        assert model.calls[2][1] == {"max_length": 15}
        model.config.max_position_embeddings = 11
        translate(model, tokenizer, ["a b c d"])
        assert model.calls[3][1] == {"max_length": 11}

    def test_the_target_has_its_own_tokenizer(self, tokenizer):
        other = copy.deepcopy(tokenizer)
        swapped = SimpleNamespace(batch_decode=lambda ids, **options: ["other"] * len(ids))
        assert translate(Echo(), other, ["a", "b"], target_tokenizer=swapped) == ["other", "other"]

    def test_bad_input(self, tokenizer):
        with pytest.raises(
            ValueError, match=r"Source 2 has 13 tokens, the model only 12 positions.*begins: 'a b"
        ):
            translate(Echo(), tokenizer, ["a", " ".join(WORDS[:12])])
        with pytest.raises(ValueError, match="num_return_sequences = 2"):
            translate(Echo(), tokenizer, ["a"], num_return_sequences=2)

    def test_the_mode_comes_back_after_an_error(self, tokenizer):
        model = Echo()
        model.generate = None
        with pytest.raises(TypeError):
            translate(model, tokenizer, ["a"])
        assert model.training

    def test_models_of_transformers_translate_too(self, tokenizer):
        sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1}
        sizes |= {"decoder_attention_heads": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 24}
        ids = {"pad_token_id": 0, "eos_token_id": 2, "forced_eos_token_id": 2, "decoder_start_token_id": 1}
        set_seed(0)
        marian = MarianMTModel(MarianConfig(**sizes, **ids, max_position_embeddings=20))
        texts = translate(marian, tokenizer, SENTENCES[:3], num_beams=2, max_length=6)
        assert len(texts) == 3 and all(len(text.split()) <= 5 for text in texts)

    def test_a_row_does_not_depend_on_its_batch(self, tokenizer):
        model = tiny_model(init_std=0.5)
        options = {"num_beams": 2, "max_length": 9}
        together = translate(model, tokenizer, SENTENCES, **options)
        assert together == translate(model, tokenizer, SENTENCES, batch_tokens=1, **options)
        assert len(set(together)) > 1


class Copies(Dataset):
    """Whole batches of two sentences to be copied, over and over."""

    def __init__(self, tokenizer, batches):
        self.n_updates, self.batches = batches, []
        for i in range(batches):
            texts = [SENTENCES[(2 * i + k) % len(SENTENCES)] for k in (0, 1)]
            batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            start = torch.full((2, 1), 1)
            decoder = torch.cat([start, batch["input_ids"][:, :-1]], dim=1)
            self.batches.append({**batch, "decoder_input_ids": decoder, "labels": labels})

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        return self.batches[index]


def train(tokenizer, folder, callbacks, **arguments):
    model = tiny_model(dropout=0.3)
    fields = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "use_cpu": True, "seed": 1}
    fields |= {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no", "logging_steps": 2}
    fields |= {
        "num_train_epochs": 1,
        "learning_rate": 0.01,
        "prediction_loss_only": True,
        "disable_tqdm": True,
    }
    trainer = Trainer(
        model,
        TrainingArguments(str(folder), **{**fields, **arguments}),
        train_dataset=Copies(tokenizer, 6),
        eval_dataset=Copies(tokenizer, 2),
        data_collator=WholeBatchCollator(),
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


@pytest.fixture
def evaluation(tokenizer):
    pytest.importorskip("sacrebleu")
    return TranslationEvaluation(tokenizer, SENTENCES[:4], SENTENCES[:4], samples=1)


class TestTranslationEvaluation:
    def test_scores_are_in_the_log_with_their_signatures_and_shown(
        self, tokenizer, evaluation, tmp_path, capsys
    ):
        trainer = train(tokenizer, tmp_path, [evaluation])
        entries = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        assert [entry["step"] for entry in entries] == [2, 4, 6]
        for entry in entries:
            assert 0 <= entry["eval_bleu"] <= 100 and 0 <= entry["eval_chrf"] <= 100
            assert "tok:13a" in entry["eval_bleu_signature"] and "nc:6" in entry["eval_chrf_signature"]
        shown = capsys.readouterr().err
        assert shown.count("4 sentences: BLEU") == 3
        assert f"    {SENTENCES[0]}\n    -> " in shown and SENTENCES[1] not in shown

    def test_training_goes_on_as_without(self, tokenizer, evaluation, tmp_path):
        # Sampling draws random numbers; the run must not notice.
        evaluation.translate_options |= {"do_sample": True}
        with_it = train(tokenizer, tmp_path / "with", [evaluation]).model.state_dict()
        without = train(tokenizer, tmp_path / "without", []).model.state_dict()
        assert all(torch.equal(value, without[name]) for name, value in with_it.items())

    def test_it_can_choose_the_best_checkpoint(self, tokenizer, evaluation, tmp_path):
        trainer = train(
            tokenizer,
            tmp_path,
            [evaluation],
            save_strategy="steps",
            save_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="bleu",
            greater_is_better=True,
        )
        best = max(e["eval_bleu"] for e in trainer.state.log_history if "eval_bleu" in e)
        assert trainer.state.best_metric == best

    def test_processes_share_the_sentences(self, evaluation, monkeypatch):
        evaluation.sources = SENTENCES[:5]
        parts = {}
        for rank in (1, 0):  # what the others send is known when the first one gathers

            def gather(into, own, rank=rank):
                parts[rank] = own
                into[:] = [parts[0], parts[1]] if rank == 0 else [own[:1] * 3, own]

            monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
            monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
            monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            texts = evaluation._shared_translations(Echo())
        assert parts == {0: SENTENCES[:5:2], 1: SENTENCES[1:5:2]}
        assert texts == SENTENCES[:5]

    def test_as_many_references_as_sources(self, tokenizer):
        with pytest.raises(ValueError, match="2 sources and 1 references"):
            TranslationEvaluation(tokenizer, ["a", "b"], ["a"])
        with pytest.raises(ValueError, match="0 sources"):
            TranslationEvaluation(tokenizer, [], [])


class TestScore:
    def test_the_loss_counts_every_target_once(self, tokenizer):
        model, plan = tiny_model(label_smoothing=0.1), Copies(tokenizer, 3)
        model.train()
        nll, tokens = score_rows(model, plan)
        assert model.training
        model.eval()
        expected = count = 0
        for batch in plan:
            logits = model(**batch).logits
            expected += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"
            ).item()
            count += int((batch["labels"] >= 0).sum())
        assert tokens == count
        assert nll == pytest.approx(expected, rel=1e-5)

    def test_a_loss_that_is_no_number_is_refused(self, tokenizer):
        model = tiny_model()
        torch.nn.init.constant_(model.lm_head.weight, torch.nan)
        with pytest.raises(FloatingPointError, match=r"loss on \d+ targets is nan"):
            score_rows(model, Copies(tokenizer, 1))

    def test_everything_in_one(self, tokenizer):
        pytest.importorskip("sacrebleu")
        plan, sources = Copies(tokenizer, 2), SENTENCES[:4]
        score = score_translation(
            tiny_model(), plan, tokenizer, sources, sources, language="en", num_beams=2
        ).as_dict()
        assert score["loss"] == pytest.approx(score["nll"] / score["tokens"])
        assert score["perplexity"] > 1 and score["sentences"] == 4
        assert {"bleu", "bleu_signature", "bleu_lowercase", "chrf"} <= set(score)
