"""NT-ASGD: the published trigger, the mean, the swap, and its place in a Trainer run."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from hfseq.training.averaging import NTASGD, AveragedEvaluation


def noisy_updates(model: nn.Module, optimizer: NTASGD, updates: int, seed: int = 0) -> list[torch.Tensor]:
    """Runs updates and returns the raw weight after each."""
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for _ in range(updates):
        model(torch.randn(4, 3, generator=generator, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        weights.append(model.weight.detach().clone())
    return weights


def published_trigger(losses: list[float], nonmono: int) -> int | None:
    """Index of the evaluation that starts averaging, in the terms of Merity et al.'s algorithm: the first evaluation
    worse than the best of those more than `nonmono` before it."""
    for now, loss in enumerate(losses):
        if now > nonmono and loss > min(losses[: now - nonmono]):
            return now
    return None


class TestTrigger:
    @pytest.mark.parametrize("nonmono", [1, 2, 5])
    def test_fires_when_the_paper_says(self, nonmono):
        generator = random.Random(nonmono)
        fired = 0
        for _ in range(50):
            losses = [3 / (1 + i) + generator.gauss(0, 0.3) for i in range(14)]
            optimizer = NTASGD(nn.Linear(1, 1).parameters(), lr=0.1, nonmono=nonmono)
            seen = []
            for loss in losses:
                optimizer.record_evaluation(loss)
                seen.append(optimizer.is_averaging)
            when = published_trigger(losses, nonmono)
            assert seen == [when is not None and i >= when for i in range(14)]
            fired += when is not None
        assert fired > 0

    def test_a_steady_fall_never_fires_and_a_standstill_does(self):
        optimizer = NTASGD(nn.Linear(1, 1).parameters(), lr=0.1, nonmono=2)
        for loss in (5.0, 4.0, 3.0, 2.0, 1.0):
            optimizer.record_evaluation(loss)
        assert not optimizer.is_averaging
        for _ in range(3):
            optimizer.record_evaluation(1.0)
        assert optimizer.is_averaging

    def test_nonmono_below_one(self):
        with pytest.raises(ValueError, match="at least 1 evaluation, not 0"):
            NTASGD(nn.Linear(1, 1).parameters(), lr=0.1, nonmono=0)


class TestAverages:
    def start(self):
        torch.manual_seed(0)
        model = nn.Linear(3, 2, bias=False).double()
        return model, NTASGD(model.parameters(), lr=0.01, weight_decay=0.01, nonmono=1)

    def trigger(self, optimizer: NTASGD) -> None:
        for _ in range(3):
            optimizer.record_evaluation(1.0)

    def test_before_the_trigger_it_is_plain_sgd(self):
        model, optimizer = self.start()
        other = copy.deepcopy(model)
        noisy_updates(model, optimizer, 5)
        noisy_updates(other, torch.optim.SGD(other.parameters(), lr=0.01, weight_decay=0.01), 5)
        assert torch.equal(model.weight, other.weight)
        optimizer.eval()
        assert torch.equal(model.weight, other.weight)

    def test_the_average_is_the_mean_of_all_weights_since(self):
        model, optimizer = self.start()
        noisy_updates(model, optimizer, 3)
        self.trigger(optimizer)
        weights = noisy_updates(model, optimizer, 6, seed=1)
        optimizer.eval()
        torch.testing.assert_close(model.weight, torch.stack(weights).mean(0), rtol=1e-12, atol=0)

    def test_the_swap_is_exact_and_may_be_repeated(self):
        model, optimizer = self.start()
        self.trigger(optimizer)
        raw = noisy_updates(model, optimizer, 4)[-1]
        optimizer.eval()
        averaged = model.weight.detach().clone()
        optimizer.eval()
        assert torch.equal(model.weight, averaged) and not torch.equal(averaged, raw)
        optimizer.train()
        optimizer.train()
        assert torch.equal(model.weight, raw)

    def test_an_update_always_starts_from_the_raw_weights(self):
        model, optimizer = self.start()
        self.trigger(optimizer)
        noisy_updates(model, optimizer, 4)
        other, twin = self.start()
        self.trigger(twin)
        noisy_updates(other, twin, 4)
        for parameter in (model.weight, other.weight):
            parameter.grad = torch.ones_like(parameter)
        optimizer.eval()
        optimizer.step()
        twin.step()
        assert torch.equal(model.weight, other.weight)

    def test_a_state_that_would_not_fit_the_model_is_refused(self):
        model, optimizer = self.start()
        self.trigger(optimizer)
        noisy_updates(model, optimizer, 1)
        optimizer.eval()
        with pytest.raises(RuntimeError, match=r"optimizer\.train\(\)"):
            optimizer.state_dict()

    def test_loaded_state_continues_to_the_bit(self, tmp_path):
        model, optimizer = self.start()
        self.trigger(optimizer)
        noisy_updates(model, optimizer, 3)
        torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
        noisy_updates(model, optimizer, 3, seed=1)
        resumed, other = self.start()
        weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
        resumed.load_state_dict(weights)
        other.load_state_dict(state)
        noisy_updates(resumed, other, 3, seed=1)
        assert torch.equal(model.weight, resumed.weight)
        optimizer.eval()
        other.eval()
        assert torch.equal(model.weight, resumed.weight)


class Spy(TrainerCallback):
    """What the weights were at each evaluation, and after each update."""

    def __init__(self):
        self.after_update, self.evaluated, self._evaluating = {}, {}, None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.after_update[state.global_step] = model.model.embed_tokens.weight.detach().clone()

    def on_prediction_step(self, args, state, control, model=None, **kwargs):
        self.evaluated[state.global_step] = model.model.embed_tokens.weight.detach().clone()


class TestTrainerRun:
    """Evaluations after each update of 8; `nonmono` 1 and a high rate make the trigger fire early."""

    def run(self, tiny_run, tmp_path, *callbacks, **arguments):
        spy = Spy()
        trainer = tiny_run.make_trainer(
            tmp_path,
            optimizer="ntasgd",
            callbacks=[spy, *callbacks],
            **{"eval_steps": 1, "save_steps": 2, **arguments},
        )
        trainer.train()
        return trainer, spy

    def test_evaluations_and_the_end_use_averages_checkpoints_the_raw_weights(self, tiny_run, tmp_path):
        trainer, spy = self.run(tiny_run, tmp_path)
        last = max(spy.after_update)
        (group,) = trainer.optimizer.param_groups
        assert 2 <= group["averaged_updates"] <= last - 2
        assert len(group["evaluations"]) == last
        first = last - group["averaged_updates"] + 1
        for step in range(1, last + 1):
            since = [spy.after_update[s] for s in range(first, step + 1)]
            expected = torch.stack(since).mean(0) if since else spy.after_update[step]
            torch.testing.assert_close(spy.evaluated[step], expected)
        # the last update's average stays in the model, through a later evaluation too
        torch.testing.assert_close(trainer.model.model.embed_tokens.weight.detach(), spy.evaluated[last])
        logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1]
        assert trainer.evaluate()["eval_loss"] == pytest.approx(logged, rel=1e-6)
        torch.testing.assert_close(trainer.model.model.embed_tokens.weight.detach(), spy.evaluated[last])
        assert len(group["evaluations"]) == last  # that one does not count

        saved = load_file(tmp_path / f"checkpoint-{last}" / "model.safetensors")["model.embed_tokens.weight"]
        assert torch.equal(saved, spy.after_update[last])
        assert not torch.equal(saved, spy.evaluated[last])

    def test_evaluation_at_the_start_does_not_count(self, tiny_run, tmp_path):
        trainer, spy = self.run(tiny_run, tmp_path, eval_on_start=True)
        assert len(trainer.optimizer.param_groups[0]["evaluations"]) == max(spy.after_update)

    def test_load_best_model_at_end_is_refused(self, tiny_run, tmp_path):
        with pytest.raises(ValueError, match="load_best_model_at_end=True.*set it to False"):
            self.run(
                tiny_run,
                tmp_path,
                load_best_model_at_end=True,
                metric_for_best_model="eval_loss",
                eval_steps=2,
            )

    def test_no_evaluation_is_refused(self, tiny_run, tmp_path):
        with pytest.raises(ValueError, match="set eval_strategy"):
            self.run(tiny_run, tmp_path, eval_strategy="no")

    def test_another_optimizer_is_refused(self, tiny_run, tmp_path):
        with pytest.raises(ValueError, match="needs the optimizer 'ntasgd', not AdamW"):
            tiny_run.make_trainer(tmp_path, callbacks=[AveragedEvaluation()]).train()

    def test_several_evaluation_sets_need_a_named_metric(self, tiny_run, tmp_path):
        sets = {"a": tiny_run.evaluation_plan(), "b": tiny_run.evaluation_plan()}
        with pytest.raises(ValueError, match="no metric 'eval_loss'.*eval_a_loss.*eval_b_loss"):
            self.run(tiny_run, tmp_path, eval_dataset=sets)
        trainer = tiny_run.make_trainer(
            tmp_path / "named",
            optimizer="ntasgd",
            eval_dataset=sets,
            eval_steps=1,
            averaged_metric="eval_b_loss",
        )
        trainer.train()
        history = trainer.state.log_history
        assert [e["eval_a_loss"] for e in history if "eval_a_loss" in e] == [
            e["eval_b_loss"] for e in history if "eval_b_loss" in e
        ]  # both sets were scored with the same weights, averaged ones too
        assert trainer.optimizer.param_groups[0]["averaged_updates"] > 0

    def test_a_nan_evaluation_stops_the_run(self, tiny_run, tmp_path):
        class Poison(TrainerCallback):
            def on_prediction_step(self, args, state, control, model=None, **kwargs):
                if state.global_step == 2:
                    model.lm_head.bias.data[:] = float("nan")

        with pytest.raises(FloatingPointError, match="eval_loss is nan at step 2"):
            self.run(tiny_run, tmp_path, Poison(), stop_on_non_finite=False)
