"""ULMFiT: its schedule, and its ways to train by layers: what moves, how fast, when, and after an interruption."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import hfseq
from hfseq.training import GradualUnfreezing, layer_groups, layerwise_optimizer, slanted_triangular

SIZES = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16}


def lstm(**fields):
    torch.manual_seed(0)
    config = hfseq.LSTMConfig(**{**SIZES, "num_hidden_layers": 3, "embedding_size": 6, **fields})
    return hfseq.LSTMForSequenceClassification(config)


def rows(n: int = 24) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(20, (n, 5), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 2} for row in ids]


def make_trainer(model, folder, callbacks=(), **fields) -> Trainer:
    fields = {
        "num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 0.01, "weight_decay": 0.1,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "seed": 1, **fields,
    }  # fmt: skip
    data = rows()
    return Trainer(
        model, TrainingArguments(str(folder), **fields), train_dataset=data, eval_dataset=data[:4],
        callbacks=list(callbacks),
    )  # fmt: skip


class TestGroups:
    def test_layers_of_a_fused_block_count_one_by_one(self):
        model = lstm(last_hidden_size=6, bidirectional=True, classifier_pooling="attention")
        names = [sorted(group) for group in layer_groups(model)]
        assert [len(group) for group in names] == [3, 8, 8, 8, 1]
        assert names[0] == [
            "classifier.out_proj.bias",
            "classifier.out_proj.weight",
            "pooling.attention.weight",
        ]
        assert names[-1] == ["model.embed_tokens.weight"]
        layers = [
            {re.sub(r"(_reverse)?$", "", n).rpartition("model.blocks.")[2] for n in g} for g in names[1:-1]
        ]
        assert "1.rnn.weight_ih_l0" in layers[0]
        assert "0.rnn.weight_ih_l1" in layers[1]
        assert "0.rnn.weight_ih_l0" in layers[2]

    @pytest.mark.parametrize("whose", ["ours", "theirs"])
    def test_encoders(self, whose):
        if whose == "ours":
            model = hfseq.EncoderForSequenceClassification(hfseq.EncoderConfig(**SIZES, **HEADS))
        else:
            model = BertForSequenceClassification(BertConfig(**SIZES, **HEADS))
        groups = layer_groups(model)
        assert len(groups) == 4
        assert all("classifier" in name or "pooler" in name for name in groups[0])
        assert all(".1." in name for name in groups[1]) and all(".0." in name for name in groups[2])
        assert all("embed" in name for name in groups[3])
        everything = {name for name, p in model.named_parameters() if p.requires_grad}
        assert set().union(*groups) == everything and sum(map(len, groups)) == len(everything)

    def test_a_model_without_layers_or_head(self):
        with pytest.raises(ValueError, match="LSTMModel has no trainable numbered layers.*Leave out"):
            layer_groups(hfseq.LSTMModel(hfseq.LSTMConfig(**SIZES)))
        frozen = lstm()
        frozen.classifier.requires_grad_(False)
        with pytest.raises(ValueError, match="no trainable head"):
            layer_groups(frozen)


class TestRates:
    def test_rates_fall_from_the_head_to_the_embedding(self, tmp_path):
        model = lstm()
        trainer = make_trainer(model, tmp_path)
        optimizer = layerwise_optimizer(trainer, 0.5)
        assert type(optimizer) is torch.optim.AdamW
        rates, decays = {}, {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                rates[id(parameter)], decays[id(parameter)] = group["lr"], group["weight_decay"]
        trainer_decays = set(trainer.get_decay_parameter_names(model))
        for name, parameter in model.named_parameters():
            number = re.search(r"_l(\d)", name)
            depth = 4 if "embed" in name else 3 - int(number.group(1)) if number else 0
            assert rates[id(parameter)] == pytest.approx(0.01 * 0.5**depth), name
            assert decays[id(parameter)] == (0.1 if name in trainer_decays else 0.0), name

    def test_the_schedule_scales_every_rate(self, tmp_path):
        model = lstm()
        trainer = make_trainer(
            model, tmp_path, num_train_epochs=1, lr_scheduler_type="linear", warmup_steps=2
        )
        trainer.optimizer = layerwise_optimizer(trainer, 0.5)
        seen = []

        class Watch(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
                seen.append(sorted({group["lr"] for group in optimizer.param_groups}, reverse=True))

        trainer.add_callback(Watch())
        trainer.train()
        for updates, share in ((1, 0.5), (2, 1.0), (4, 0.5)):
            assert seen[updates] == pytest.approx([share * 0.01 * 0.5**depth for depth in range(5)])

    @pytest.mark.parametrize("decay", [0.0, -1.0, 1.5])
    def test_a_factor_that_makes_no_sense(self, tmp_path, decay):
        with pytest.raises(ValueError, match=f"above 0 and at most 1, not {decay}"):
            layerwise_optimizer(make_trainer(lstm(), tmp_path), decay)


class Watch(TrainerCallback):
    """Which groups changed in each epoch."""

    def __init__(self, model):
        self.groups, self.changed, self.before = layer_groups(model), [], None

    def _weights(self):
        return [[p.detach().clone() for p in group.values()] for group in self.groups]

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.before = self._weights()

    def on_epoch_end(self, args, state, control, **kwargs):
        pairs = zip(self.before, self._weights(), strict=True)
        self.changed.append(
            [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairs]
        )


class TestUnfreezing:
    def test_one_more_group_trains_in_every_epoch(self, tmp_path):
        model = lstm()
        watch = Watch(model)
        callback = GradualUnfreezing(model)
        make_trainer(model, tmp_path, [callback, watch], num_train_epochs=6).train()
        assert watch.changed == [[depth < epoch for depth in range(5)] for epoch in (1, 2, 3, 4, 5, 5)]
        assert all(p.requires_grad for p in model.parameters())

    def test_frozen_groups_have_no_gradient_and_no_optimiser_state(self, tmp_path):
        model = lstm()
        trainer = make_trainer(model, tmp_path, [GradualUnfreezing(model, 0.5)], num_train_epochs=1)
        trainer.train()
        head, top, second, *_ = [list(group.values()) for group in layer_groups(model)]
        state = trainer.optimizer.state
        assert all(float(state[p]["step"]) == 6 for p in head)
        assert all(float(state[p]["step"]) == 3 for p in top)
        assert not any(p in state for p in second)

    @pytest.mark.parametrize("accumulation", [1, 2])
    def test_resumed_is_uninterrupted(self, tmp_path, accumulation):
        """Interrupted within the second epoch, and exactly at its end."""

        def run(folder, **fields):
            model = lstm(output_dropout=0.2)
            trainer = make_trainer(
                model, folder, [GradualUnfreezing(model)], save_strategy="steps", save_steps=1,
                gradient_accumulation_steps=accumulation, per_device_train_batch_size=4 // accumulation, **fields,
            )  # fmt: skip
            trainer.optimizer = layerwise_optimizer(trainer, 0.5)
            return trainer

        whole = run(tmp_path / "whole")
        whole.train()
        for step in (9, 12):
            resumed = run(tmp_path / f"resumed-{step}")
            resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
            for name, parameter in whole.model.named_parameters():
                assert torch.equal(parameter, dict(resumed.model.named_parameters())[name]), (step, name)

    def test_early_stopping_waits_until_everything_trains(self, tmp_path):
        model = lstm()
        stopping = EarlyStoppingCallback(1, early_stopping_threshold=1e9)  # nothing is ever an improvement
        trainer = make_trainer(
            model, tmp_path, [stopping], num_train_epochs=9, eval_strategy="epoch", save_strategy="epoch",
            load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False,
        )  # fmt: skip
        trainer.add_callback(GradualUnfreezing(model, 1.0, stopping))
        trainer.train()
        assert trainer.state.epoch == 5  # the first in which the embedding trains

    @pytest.mark.parametrize("epochs", [0.0, -1.0, float("nan")])
    def test_epochs_that_make_no_sense(self, epochs):
        with pytest.raises(ValueError, match=f"above 0, not {epochs}"):
            GradualUnfreezing(lstm(), epochs)


class TestSlantedTriangular:
    def rates(self, updates: int, **options) -> list[float]:
        """The rate of each update and the one after the last, for a highest rate of 0.01."""
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
        schedule = slanted_triangular(optimizer, updates, **options)
        rates = []
        for _ in range(updates + 1):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    def test_is_the_papers(self):
        # Howard and Ruder 2018, equation 3, with T = 1600, cut_frac = 0.1, ratio = 32.
        rates = self.rates(1600)
        assert rates[0] == pytest.approx(0.01 / 32) and rates[1600] == pytest.approx(0.01 / 32)
        assert max(rates) == rates[160] == pytest.approx(0.01)
        assert rates[80] == pytest.approx(0.01 * (1 + 0.5 * 31) / 32)
        assert rates[880] == pytest.approx(0.01 * (1 + 0.5 * 31) / 32)

    def test_options_and_short_runs(self):
        rates = self.rates(100, cut_fraction=0.25, ratio=10)
        assert rates[0] == pytest.approx(0.001) and rates[25] == pytest.approx(0.01) == max(rates)
        short = self.rates(5)
        assert short[0] == pytest.approx(0.01) and min(short) >= 0.01 / 32 * 0.999
        assert short == sorted(short, reverse=True)

    @pytest.mark.parametrize("options", [{"cut_fraction": 0}, {"cut_fraction": 1}, {"ratio": 0.5}])
    def test_refused(self, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            self.rates(10, **options)
