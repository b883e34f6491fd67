"""Callbacks within real, tiny Trainer runs."""

from __future__ import annotations

import io
import math
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import TrainerCallback, TrainerControl

from hfseq.training.callbacks import ReadableProgress, StopOnNonFiniteLoss, TrueEpoch, replace_progress
from hfseq.training.checkpoints import newest_complete_checkpoint


class SpoilLoss(TrainerCallback):
    """Makes the loss of one update NaN (before StopOnNonFiniteLoss sees it) but not the gradients."""

    def __init__(self, update: int, value: float = math.nan):
        self.update, self.value, self.current = update, value, 0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def spoil(module, inputs, output):
            if module.training and self.current == self.update:
                output.loss = output.loss + (self.value if math.isinf(self.value) else math.nan)

        model.register_forward_hook(spoil, prepend=True)

    def on_step_begin(self, args, state, control, **kwargs):
        self.current = state.global_step + 1


class SpoilWeights(TrainerCallback):
    def __init__(self, update: int):
        self.update = update

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.update:
            model.lm_head.bias.data[3] = math.inf


class TestStopOnNonFiniteLoss:
    def test_nan_is_noticed_before_it_is_logged(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path, callbacks=[SpoilLoss(3)])
        with pytest.raises(
            FloatingPointError, match=r"loss is nan at update 3;.*learning_rate \(now 0.02\).*max_grad_norm"
        ):
            trainer.train()
        assert [e["step"] for e in trainer.state.log_history if "loss" in e] == [1, 2]

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_no_checkpoint_follows_and_the_message_names_the_first_update(self, tiny_run, tmp_path, value):
        """Logging is off: the loss of update 3 is looked at only when update 4 is about to be saved."""
        trainer = tiny_run.make_trainer(
            tmp_path, callbacks=[SpoilLoss(3, value)], logging_strategy="no", eval_strategy="no"
        )
        with pytest.raises(FloatingPointError, match=f"loss is (nan|{value}) at update 3"):
            trainer.train()
        assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        assert not (tmp_path / "checkpoint-4").exists()

    def test_the_end_is_looked_at_when_nothing_else_is(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(
            tmp_path, callbacks=[SpoilLoss(6)], logging_strategy="no", eval_strategy="no", save_strategy="no"
        )
        with pytest.raises(FloatingPointError, match="update 6"):
            trainer.train()

    def test_weights_ruined_by_the_last_update_are_not_saved(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path, callbacks=[SpoilWeights(4)])
        with pytest.raises(
            FloatingPointError, match=r"After update 4 1 weights are not finite \(first: lm_head.bias\)"
        ):
            trainer.train()
        assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"

    def test_trainers_filter_is_refused(self, tiny_run, tmp_path):
        with pytest.raises(ValueError, match="logging_nan_inf_filter=False"):
            tiny_run.make_trainer(tmp_path, logging_nan_inf_filter=True).train()

    def test_a_healthy_run_passes_and_leaves_no_hook(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path)
        hooks = len(trainer.model._forward_hooks)
        trainer.train()
        assert trainer.state.global_step == 6 and len(trainer.model._forward_hooks) == hooks

    def test_it_looks_only_when_something_is_kept(self):
        """Reading the tensor would make a GPU wait at every update."""

        class Unreadable:
            def tolist(self):
                raise AssertionError("synchronised")

        callback = StopOnNonFiniteLoss()
        callback._first = Unreadable()
        state = SimpleNamespace(global_step=1)
        args = SimpleNamespace(world_size=1)
        callback.on_step_end(args, state, TrainerControl(), model=torch.nn.Linear(1, 1))
        with pytest.raises(AssertionError, match="synchronised"):
            callback.on_step_end(args, state, TrainerControl(should_log=True), model=torch.nn.Linear(1, 1))


class TestTrueEpoch:
    def test_the_log_has_the_plans_epochs_and_epoch_strategies_follow_them(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(
            tmp_path, logging_strategy="epoch", eval_strategy="epoch", save_strategy="epoch"
        )
        trainer.train()
        history = trainer.state.log_history
        assert [(e["step"], e["epoch"]) for e in history if "loss" in e] == [(3, 1.0), (6, 2.0)]
        assert [(e["step"], e["epoch"]) for e in history if "eval_loss" in e] == [(3, 1.0), (6, 2.0)]
        assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
        assert history[-1]["epoch"] == 2.0

    def test_eval_delay_counts_true_epochs(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path, eval_strategy="epoch", eval_delay=1.5)
        trainer.train()
        assert [e["step"] for e in trainer.state.log_history if "eval_loss" in e] == [6]

    def test_within_an_epoch(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path)
        trainer.train()
        epochs = [e["epoch"] for e in trainer.state.log_history if "loss" in e]
        assert epochs == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])

    @pytest.mark.parametrize("fields", [{"num_train_epochs": 3}, {"max_steps": 7}])
    def test_running_the_plan_twice_is_refused(self, tiny_run, tmp_path, fields):
        with pytest.raises(ValueError, match="set num_train_epochs=1"):
            tiny_run.make_trainer(tmp_path, **fields).train()

    def test_fewer_updates_than_the_plan_has_are_fine(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path, max_steps=4)
        trainer.train()
        assert trainer.state.epoch == pytest.approx(4 / 3)


class Rates(TrainerCallback):
    """Records how far each update moved a weight whose gradient is known, and the rate between updates."""

    def __init__(self):
        self.moves, self.between = [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        model.lm_head.bias.grad.fill_(1.0)
        self._before = model.lm_head.bias[0].item()

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.moves.append(self._before - model.lm_head.bias[0].item())

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        self.between.append(optimizer.param_groups[0]["lr"])


class TestScaleRateWithLength:
    def test_the_step_alone_is_scaled(self, tiny_run, tmp_path):
        plan = tiny_run.StreamPlan(
            tiny_run.text(8 * 60, 0), streams=8, segment_length=16, epochs=1, random_lengths=True, seed=1
        )
        rates = Rates()
        trainer = tiny_run.make_trainer(
            tmp_path,
            optimizer="ntasgd",
            plan=plan,
            dtype=torch.float64,
            callbacks=[rates],
            max_grad_norm=0.0,
            learning_rate=0.5,
            weight_decay=0.0,
            lr_scheduler_type="linear",
        )
        trainer.train()
        lengths = [plan.segment_length_at(update) for update in range(plan.n_updates)]
        assert len(set(lengths)) > 1
        plain = [0.5 * (1 - update / plan.n_updates) for update in range(plan.n_updates)]
        assert rates.moves == pytest.approx([r * n / 16 for r, n in zip(plain, lengths, strict=True)])
        assert rates.between == pytest.approx([*plain[1:], 0.0])
        logged = [e["learning_rate"] for e in trainer.state.log_history if "loss" in e]
        assert logged == pytest.approx(plain)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestReadableProgress:
    def test_lines_where_there_is_no_terminal(self, tiny_run, tmp_path, capsys):
        trainer = tiny_run.make_trainer(tmp_path, disable_tqdm=False)
        trainer.train()
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("update")]
        assert len(lines) == 6 + 3 + 1
        history = [e for e in trainer.state.log_history if "loss" in e]
        first, loss = history[0], history[0]["loss"]
        assert lines[0] == (
            f"update 1/6  epoch 0.33  loss {loss:.4f}  perplexity {math.exp(loss):.2f}  "
            f"tokens/s {first['tokens_per_second']:,.0f}  learning rate {first['learning_rate']:.3g}"
        )
        assert lines[2].startswith("update 2/6  epoch 0.67  validation: loss ") and "perplexity" in lines[2]
        assert "trained 192 tokens" in lines[-1]

    def test_a_bar_on_a_terminal(self, tiny_run, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "stderr", Terminal())
        trainer = tiny_run.make_trainer(tmp_path, disable_tqdm=False)
        trainer.train()
        shown = sys.stderr.getvalue()
        assert "6/6" in shown and "perplexity=" in shown and "tokens/s=" in shown and "evaluating" in shown
        assert "validation: loss" in shown

    def test_only_the_main_process_writes(self, capsys):
        progress = ReadableProgress(8)
        state = SimpleNamespace(
            is_world_process_zero=False, global_step=1, max_steps=2, epoch=0.5, log_history=[{}]
        )
        args, control = SimpleNamespace(disable_tqdm=False), TrainerControl()
        progress.on_train_begin(args, state, control)
        progress.on_step_end(args, state, control)
        progress.on_log(args, state, control, logs={"loss": 1.0, "learning_rate": 0.1})
        progress.on_train_end(args, state, control)
        captured = capsys.readouterr()
        assert captured.err == "" and captured.out == ""
        assert progress.total_tokens == 8 and progress.tokens_per_second > 0

    def test_evaluations_and_saves_do_not_count_as_training(self, monkeypatch):
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr("hfseq.training.callbacks.time.perf_counter", lambda: clock.now)
        progress = ReadableProgress(lambda update: 100 + update)
        state = SimpleNamespace(
            is_world_process_zero=False, global_step=0, max_steps=9, epoch=0.5, log_history=[{}]
        )
        args, control = SimpleNamespace(disable_tqdm=True), TrainerControl()
        progress.on_train_begin(args, state, control)
        for seconds in (1, 2):
            clock.now += seconds
            state.global_step += 1
            progress.on_step_end(args, state, control)
        logs = {"loss": 1.0, "learning_rate": 0.1}
        progress.on_log(args, state, control, logs=logs)
        assert (
            logs["tokens_per_second"] == 67.0 == state.log_history[-1]["tokens_per_second"]
        )  # (100 + 101) / 3 s
        clock.now += 50
        progress.on_evaluate(args, state, control)
        clock.now += 50
        progress.on_save(args, state, control)
        clock.now += 3
        state.global_step += 1
        progress.on_step_end(args, state, control)
        progress.on_train_end(args, state, control)
        assert (progress.total_tokens, progress.total_seconds) == (303, 6.0)

    def test_a_resumed_run_goes_on_counting(self, tiny_run, tmp_path, capsys):
        whole = tiny_run.make_trainer(tmp_path, save_steps=2)
        whole.train()
        saved = next(e["trained_seconds"] for e in whole.state.log_history if e["step"] == 4)
        resumed = tiny_run.make_trainer(tmp_path, save_steps=2)
        capsys.readouterr()
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        totals = [e for e in resumed.state.log_history if "trained_seconds" in e][-1]
        assert totals["step"] == 6 and totals["trained_tokens"] == 192
        assert totals["trained_seconds"] > saved > 0
        assert "trained 192 tokens" in capsys.readouterr().err.splitlines()[-1]

    def test_an_evaluation_without_training(self, tiny_run, tmp_path, capsys):
        loss = tiny_run.make_trainer(tmp_path).evaluate()["eval_loss"]
        assert capsys.readouterr().err.startswith(f"validation: loss {loss:.4f}")

    @pytest.mark.parametrize("disable_tqdm", [True, False])
    def test_it_takes_the_stock_ones_place(self, tiny_run, tmp_path, disable_tqdm):
        trainer = transformers.Trainer(
            tiny_run.make_trainer(tmp_path).model,
            transformers.TrainingArguments(tmp_path, use_cpu=True, disable_tqdm=disable_tqdm),
        )
        replace_progress(trainer, ReadableProgress())
        kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
        assert ReadableProgress in kinds
        assert not {transformers.ProgressCallback, transformers.PrinterCallback} & set(kinds)


def test_a_huge_loss_has_a_perplexity(tiny_run):
    from hfseq.training.callbacks import _perplexity

    assert [_perplexity(loss) for loss in (0.0, 7.5, 20.0, 1e4)] == ["1.00", "1,808.04", "4.85e+08", "inf"]


def test_true_epoch_needs_only_a_plan():
    plan = SimpleNamespace(epoch_at=lambda update: update / 4)
    state = SimpleNamespace(global_step=0, num_train_epochs=1, epoch=None)
    TrueEpoch(plan).on_train_begin(None, state, TrainerControl())
    assert state.epoch == 0.0
