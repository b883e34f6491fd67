"""The validation loss is the mean over labels: of one process, of two (`two_processes.py`), of a loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hfseq import (
    EncoderConfig,
    EncoderForPreTraining,
    LSTMConfig,
    LSTMForCausalLM,
    TransformerConfig,
    TransformerForSeq2SeqLM,
)
from hfseq.data import (
    FeaturePlan,
    MaskedPlan,
    MaskingVocabulary,
    PairArray,
    PairPlan,
    RowPlan,
    StreamCollator,
    StreamPlan,
    TokenArray,
    WholeBatchCollator,
)
from hfseq.training import weigh_losses_by_labels

SIZE, END = 64, 3
KINDS = ("streams", "features", "rows", "masked", "masked-bert", "pairs")


def text(seed: int, documents: int = 11) -> TokenArray:
    """Documents of 0 to 40 tokens of which a few are frequent, so that a loss depends on what it is taken of."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 41, documents)
    ids = [np.minimum(generator.geometric(0.08, n) + 6, SIZE - 1) for n in lengths]
    tokens = np.concatenate([[END], *(np.append(own, END) for own in ids)]).astype(np.uint16)
    offsets = np.concatenate([[1], 1 + np.cumsum(lengths + 1)]).astype(np.int64)
    return TokenArray(tokens, offsets, documents, 0, 0, SIZE, END, "by hand", Path("by hand"))


def vocabulary() -> MaskingVocabulary:
    ids = np.arange(SIZE)
    plain = np.zeros(SIZE, bool)
    return MaskingVocabulary(
        size=SIZE, pad_id=0, cls_id=2, sep_id=END, mask_id=4, ordinary=ids[5:], special=ids < 5, joins_left=plain,
        joins_right=plain, ends_sentence=ids == 5, closes=plain, begins_word=ids > 6, breaks_line=plain,
    )  # fmt: skip


def sharp(model):
    """In float64 and with weights large enough that what is guessed matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.double()


def case(kind: str, processes: int):
    """model, evaluation plan, collator, per_device_eval_batch_size, compute_loss_func"""
    whole, sizes = WholeBatchCollator(), {"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": SIZE}
    if kind in ("streams", "features"):
        width = 2 if kind == "features" else 0
        config = LSTMConfig(**sizes, embedding_size=8, feature_size=width, pad_token_id=0, eos_token_id=END)
        model = sharp(LSTMForCausalLM(config))
        if kind == "streams":
            plan = StreamPlan.evaluation(text(1), streams=3, segment_length=16, processes=processes)
            return model, plan, StreamCollator(), plan.streams // processes, None
        vectors = np.random.default_rng(2).normal(size=(11, 2)).astype(np.float32)
        plan = FeaturePlan.evaluation(text(1), vectors, tokens_per_batch=60, processes=processes)
        return model, plan, _Double(whole), 1, None
    if kind == "rows":
        config = GPT2Config(vocab_size=SIZE, n_embd=8, n_layer=1, n_head=2, n_positions=32)
        plan = RowPlan.evaluation(text(1), row_length=32, tokens_per_batch=96, processes=processes)
        return sharp(GPT2LMHeadModel(config)), plan, whole, 1, None
    attention = {"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 32}
    if kind == "masked":
        model = sharp(EncoderForPreTraining(EncoderConfig(**sizes, **attention, pad_token_id=0)))
        plan = MaskedPlan.evaluation(
            text(1), vocabulary(), row_length=32, tokens_per_batch=96, processes=processes, packing="sop"
        )
        return model, plan, whole, 1, None
    if kind == "masked-bert":  # divides by the labels of the batch, whatever Trainer says
        model = sharp(BertForMaskedLM(BertConfig(**sizes, **attention)))
        plan = MaskedPlan.evaluation(
            text(1), vocabulary(), row_length=32, tokens_per_batch=96, processes=processes
        )
        return model, plan, _Without(whole, "masked_positions"), 1, from_logits
    config = TransformerConfig(
        vocab_size=SIZE, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=2, eos_token_id=END, decoder_start_token_id=2,
    )  # fmt: skip
    plan = PairPlan.evaluation(PairArray(text(1), text(2), 2, 0), tokens_per_batch=90, processes=processes)
    return sharp(TransformerForSeq2SeqLM(config)), plan, whole, 1, None


class _Double:
    """Vectors in the model's float64."""

    def __init__(self, collator):
        self.collator = collator

    def __call__(self, items):
        batch = self.collator(items)
        return {**batch, "features": batch["features"].double()}


class _Without:
    def __init__(self, collator, name):
        self.collator, self.name = collator, name

    def __call__(self, items):
        return {name: value for name, value in self.collator(items).items() if name != self.name}


def from_logits(outputs, labels, num_items_in_batch=None):
    total = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return total / num_items_in_batch


class FirstToRead(TrainerCallback):
    """What other callbacks see."""

    seen = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen = logs.get("eval_loss", self.seen)


def trainer_of(kind: str, processes: int, directory: str, **options) -> Trainer:
    model, plan, collator, rows, compute_loss = case(kind, processes)
    arguments = TrainingArguments(
        output_dir=directory, use_cpu=True, report_to="none", disable_tqdm=True, per_device_eval_batch_size=rows,
        prediction_loss_only=True, remove_unused_columns=False, logging_nan_inf_filter=False, save_strategy="no",
        ddp_backend="gloo" if processes > 1 else None, ddp_find_unused_parameters=True, **options,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=plan, eval_dataset=plan, data_collator=collator,
        compute_loss_func=compute_loss, callbacks=[FirstToRead()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def evaluate(kind: str, processes: int, directory: str) -> list[float]:
    """The loss as `evaluate()` returns it, as it is logged and as other callbacks see it; of pairs in training, too
    (where the model is wrapped; the rate is zero)."""
    trained = kind == "pairs"
    trainer = trainer_of(
        kind, processes, directory, max_steps=1, learning_rate=0.0, optim="sgd", eval_strategy="steps", eval_steps=1,
        per_device_train_batch_size=1, train_sampling_strategy="sequential",
    )  # fmt: skip
    weigh_losses_by_labels(trainer)
    found = []
    for run in [trainer.evaluate, trainer.train] if trained else [trainer.evaluate]:
        result = run()
        found += [result["eval_loss"]] if run == trainer.evaluate else []
        found += [next(e["eval_loss"] for e in reversed(trainer.state.log_history) if "eval_loss" in e)]
        found += [next(c for c in trainer.callback_handler.callbacks if isinstance(c, FirstToRead)).seen]
        # A loss of nobody's evaluation, between two: it must not count.
        trainer.model.eval()
        trainer.model(**trainer.data_collator([trainer.eval_dataset[0]]), num_items_in_batch=1)
    return found


def total_in_a_loop(kind: str) -> float:
    model, plan, collator, rows, compute_loss = case(kind, 1)
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(plan), rows):
            items = plan.__getitems__(list(range(first, first + rows))) if rows > 1 else [plan[first]]
            batch = collator(items)
            count += int((batch["labels"] != -100).sum())
            if compute_loss is None:
                total += model(**batch, num_items_in_batch=1).loss.item()
            else:
                labels = batch.pop("labels")
                total += compute_loss(model(**batch), labels, 1).item()
    return total / count


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_two_and_a_loop_have_one_loss(kind, two_processes, tmp_path):
    expected = total_in_a_loop(kind)
    of_two = json.loads((two_processes / "losses.json").read_text(encoding="utf-8"))[kind]
    for losses in (evaluate(kind, 1, str(tmp_path)), of_two):
        assert losses == pytest.approx([expected] * len(losses), rel=1e-6) and len(losses) == 3 + 2 * (
            kind == "pairs"
        )


@pytest.mark.parametrize("kind", ["features", "rows", "masked-bert"])
def test_trainer_s_own_loss_is_another(kind, tmp_path):
    assert abs(trainer_of(kind, 1, str(tmp_path)).evaluate()["eval_loss"] / total_in_a_loop(kind) - 1) > 1e-5


def test_what_is_not_an_evaluation_is_left_alone(tmp_path):
    trainer = trainer_of("pairs", 1, str(tmp_path))
    weigh_losses_by_labels(trainer)
    trainer.predict(trainer.eval_dataset)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total_in_a_loop("pairs"), rel=1e-6)
    trainer.log({"train_runtime": 1.0, "train_loss": 7.0})
    trainer.log({"eval_runtime": 1.0, "eval_loss": 7.0})  # nothing was noted
    assert [entry.get("train_loss", entry.get("eval_loss")) for entry in trainer.state.log_history[-2:]] == [
        7,
        7,
    ]
    named = trainer.evaluate({"one": trainer.eval_dataset, "two": trainer.eval_dataset})
    assert (
        named["eval_one_loss"] == named["eval_two_loss"] == pytest.approx(total_in_a_loop("pairs"), rel=1e-6)
    )


def two_processes_write(file: Path) -> None:
    """{kind: losses}, in two processes."""
    losses = {kind: evaluate(kind, 2, str(file.with_name(f"losses-{kind}"))) for kind in KINDS}
    if torch.distributed.get_rank() == 0:
        file.write_text(json.dumps(losses), encoding="utf-8")
