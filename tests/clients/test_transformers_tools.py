"""What transformers brings: trainers, searches, loggers, pipelines, its server."""

from __future__ import annotations

import math

import pytest
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, pipeline

from hfseq.contracts import clients
from hfseq.contracts.comparing import FLOAT32
from hfseq.contracts.training_runs import Rows, trainer

pytestmark = pytest.mark.clients


def stock(case, model, directory, **options):
    """A stock Trainer over eight rows, which a collator of transformers pads."""
    collator, dropped = clients.stock_collator(case.kind, model)
    rows = [
        {name: value.tolist() for name, value in row.items() if name not in dropped}
        for row in case.rows(model.config, [6, 3, 5, 4] * 2)
    ]
    return trainer(case, model, rows, directory, data_collator=collator, eval_dataset=rows, **options)


def test_trainer(case):
    clients.evaluated_by_the_stock_trainer(case)


def test_seq2seq_trainer(case, tmp_path):
    model = case.model(FLOAT32)
    collator, dropped = clients.stock_collator(case.kind, model)
    rows = [
        {name: value.tolist() for name, value in row.items() if name not in dropped}
        for row in case.rows(model.config, [6, 3, 5, 4])
    ]
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), predict_with_generate=True, generation_max_length=7, use_cpu=True, disable_tqdm=True,
        per_device_eval_batch_size=4, max_steps=1, learning_rate=1e-3,
    )  # fmt: skip
    made = Seq2SeqTrainer(
        model, arguments, train_dataset=Rows(rows), eval_dataset=Rows(rows), data_collator=collator
    )
    made.train()
    found = made.predict(Rows(rows))
    batch = collator(rows)
    expected = model.eval().generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_length=7)
    assert math.isfinite(found.metrics["test_loss"])
    assert found.predictions[:, : expected.shape[1]].tolist() == expected.tolist()


def test_search(case, tmp_path):
    pytest.importorskip("optuna")
    made = stock(case, case.model(FLOAT32), str(tmp_path), max_steps=1, eval_strategy="steps", eval_steps=1)
    made.model_init = lambda: case.model(FLOAT32)
    best = made.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-1, log=True)},
        n_trials=2, backend="optuna", direction="minimize",
    )  # fmt: skip
    assert math.isfinite(best.objective) and 1e-6 <= best.hyperparameters["learning_rate"] <= 1e-1


def test_tensorboard(case, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"report_to": "tensorboard", "max_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    made = stock(case, case.model(FLOAT32), str(tmp_path), **options)
    made.train()
    (file,) = tmp_path.rglob("events.out.tfevents*")
    events = EventAccumulator(str(file.parent)).Reload()
    logged = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(logged, rel=1e-6)
    assert len(events.Scalars("eval/loss")) == 1


TASKS = {
    "AutoModelForCausalLM": "text-generation", "AutoModelForSeq2SeqLM": "translation",
    "AutoModelForMaskedLM": "fill-mask", "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
}  # fmt: skip


def test_pipelines(case, saved, texts):
    task = TASKS[case.kind.auto_class]
    made = pipeline(task, model=saved, device="cpu")
    assert type(made.model) is case.model_class
    if task == "fill-mask":
        best = made(texts[0] + " " + made.tokenizer.mask_token)[0]
        assert 0 < best["score"] <= 1 and best["sequence"].startswith(texts[0])
        return
    options = {"max_new_tokens": 4, "do_sample": False} if case.kind.generates else {}
    together, alone = made(texts[:3], batch_size=3, **options), made([texts[1]], **options)
    assert _rounded(together[1]) == _rounded(alone[0])
    if task == "text-generation":
        assert together[1][0]["generated_text"].startswith(texts[1])


def _rounded(value):
    """Without the last digits, which the padding of a batch may change."""
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, dict):
        return {name: round(float(v), 4) if name == "score" else v for name, v in value.items()}
    return value


def test_serve(case, saved, texts):
    """The server itself, asked through the client of OpenAI that it is made for."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    openai = pytest.importorskip("openai")
    from transformers.cli.serve import Serve

    server = Serve(force_model=saved, device="cpu", host="127.0.0.1", port=8471, non_blocking=True)
    try:
        client = openai.OpenAI(base_url="http://127.0.0.1:8471/v1", api_key="none")
        answer = client.completions.create(model=saved, prompt=texts[0], max_tokens=5, temperature=0)
    finally:
        server.kill_server()
    made = pipeline("text-generation", model=saved, device="cpu")
    expected = made(texts[0], max_new_tokens=5, do_sample=False, return_full_text=False)
    assert answer.choices[0].text.split() == expected[0]["generated_text"].split()
