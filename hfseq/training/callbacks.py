"""What a run needs besides the stock Trainer's callbacks: a stop at NaN, progress one can read, the true epoch, and
AWD-LSTM's learning rate.

The order in which they are given to Trainer matters: `TrueEpoch` first (it decides what is logged, evaluated and
saved), then `StopOnNonFiniteLoss` (it stops before any of that happens), `CheckpointCallback` after both.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sized
from typing import Any, Protocol

import torch
import transformers
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .sharded_weights import own_part


class PacedPlan(Protocol):
    """What these callbacks ask of a batch plan (`hfseq.data.StreamPlan` is one)."""

    segment_length: int

    def epoch_at(self, update: int) -> float:
        """Passes over the data after `update` updates."""

    def segment_length_at(self, update: int) -> int:
        """Tokens per row of update number `update`, from 0."""


class StopOnNonFiniteLoss(TrainerCallback):
    """Stops the run at a NaN or infinite loss, before it is logged, evaluated or saved.

    A forward hook keeps the first non-finite training loss in a tensor on the device, so no update waits for the
    GPU; it is looked at only when something is about to be logged, evaluated or saved, or training ends. Before an
    evaluation or a save the weights are looked at too: the last update may have ruined them after a finite loss.
    All processes stop together. (A loss that Trainer computes itself, as with `label_smoothing_factor`, is not seen by
    the hook, only what it does to the weights; `config.label_smoothing` is.)

    Raises:
        FloatingPointError: names the update, the loss and what to try.
        ValueError: when training begins, if `logging_nan_inf_filter` would hide such losses.
    """

    def __init__(self) -> None:
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._first: torch.Tensor | None = None  # [2]: loss, update; the loss is finite while all is well
        self._update = 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **kwargs: object,
    ) -> None:
        if args.logging_nan_inf_filter:
            raise ValueError(
                "logging_nan_inf_filter=True replaces NaN losses in the log by the average of the others (and "
                "synchronises with the GPU at every step): set TrainingArguments(logging_nan_inf_filter=False)."
            )
        self._forget()
        self._first = None
        self._handle = model.register_forward_hook(self._look)

    def _look(self, model: nn.Module, inputs: tuple, output: Any) -> None:
        loss = output.get("loss") if isinstance(output, dict) else output[0]
        if not model.training or loss is None:
            return
        current = torch.stack([loss.detach().float(), loss.new_full((), self._update, dtype=torch.float)])
        if self._first is None:
            self._first = current
        else:
            self._first = torch.where(torch.isfinite(self._first[0]), current, self._first)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._update = state.global_step + 1

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **kwargs: object,
    ) -> None:
        keeps = control.should_evaluate or control.should_save or control.should_training_stop
        if not (keeps or control.should_log):
            return
        problem = None
        loss, update = (0.0, 0.0) if self._first is None else self._first.tolist()
        if not math.isfinite(loss):
            problem = f"The training loss is {loss} at update {int(update)}"
        elif keeps:
            ruined = [n for n, p in model.named_parameters() if not torch.isfinite(own_part(p)).all()]
            if ruined:
                problem = f"After update {state.global_step} {len(ruined)} weights are not finite (first: {ruined[0]})"
        if args.world_size > 1:
            # Each process sees only its own rows' loss; one alone must not stop, or the others would wait for ever.
            flag = torch.tensor(float(problem is not None), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            if flag.item() and problem is None:
                problem = (
                    f"Another process met a loss or weight that is not finite by update {state.global_step}"
                )
        if problem is not None:
            self._forget()
            raise FloatingPointError(
                f"{problem}; nothing was saved since the last complete checkpoint. Try a lower learning_rate (now "
                f"{args.learning_rate:g}), gradient clipping (max_grad_norm, now {args.max_grad_norm:g}), warmup_steps "
                f"(now {args.warmup_steps:g}), float32 or bf16 instead of fp16; check the data of that update."
            )

    on_epoch_end = on_step_end

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class TrueEpoch(TrainerCallback):
    """Makes "epoch" mean a pass over the data where one data set holds all passes, so that Trainer counts one.

    The log shows the plan's epoch, and the strategies "epoch" for logging, evaluation and saving act at the end of each
    of the plan's epochs. (Saving with `save_strategy="best"` follows the evaluations.)

    Args:
        plan: has `epoch_at(update)`.

    Raises:
        ValueError: when training begins, if Trainer would run the plan more than once.
    """

    def __init__(self, plan: PacedPlan) -> None:
        self.plan = plan

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if state.num_train_epochs != 1:
            raise ValueError(
                f"Trainer would run through the plan {state.num_train_epochs} times, but the plan holds all epochs "
                "itself: set num_train_epochs=1 (and max_steps to no more than the plan has updates)."
            )
        state.epoch = self.plan.epoch_at(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        state.epoch = self.plan.epoch_at(state.global_step)
        crossed = math.floor(state.epoch) > math.floor(self.plan.epoch_at(state.global_step - 1))
        # At the last update Trainer's own epoch ends too, and does these itself.
        if crossed and state.global_step < state.max_steps:
            control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
            control.should_evaluate |= (
                args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= state.epoch
            )
            control.should_save |= args.save_strategy == SaveStrategy.EPOCH
        return control


class ScaleRateWithLength(TrainerCallback):
    """AWD-LSTM's learning rate: multiplied by each update's segment length over the nominal one.

    Random lengths would otherwise favour short segments (Merity et al. 2017, section 5). Only
    the optimiser step sees it; schedule, log and checkpoint keep the plain rate.

    Args:
        plan: has `segment_length_at(update)` and `segment_length`, the nominal length.
    """

    def __init__(self, plan: PacedPlan) -> None:
        self.plan = plan
        self._rates: list[float] = []

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer,
        **kwargs: object,
    ) -> None:
        factor = self.plan.segment_length_at(state.global_step) / self.plan.segment_length
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] *= factor

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer,
        **kwargs: object,
    ) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate


class ReadableProgress(TrainerCallback):
    """A progress bar with loss, perplexity and tokens/s, and one line per evaluation; without a terminal, lines.

    Only the main process writes, to standard error. `tokens_per_second` (training only, evaluations and saves
    excluded) also goes into `trainer.state.log_history`, and with it the totals, from which a resumed run goes on
    counting. Put it in the stock callbacks' place by `replace_progress`.

    Args:
        tokens_at: input tokens of all processes in update number i (from 0), or a constant; None: no tokens/s.
            For streams: `lambda update: plan.segment_length_at(update) * streams`.
    """

    def __init__(self, tokens_at: Callable[[int], int] | int | None = None) -> None:
        self.tokens_at = tokens_at
        self.total_tokens = 0
        """Tokens trained on since the run began, in whichever process."""
        self.total_seconds = 0.0
        """The time that took, without evaluations and saves."""
        self._window_tokens, self._window_seconds = 0, 0.0  # since the last log
        self._mark = time.perf_counter()
        self._bar: tqdm | None = None
        self._evaluation_bar: tqdm | None = None
        self._as_lines = False

    @property
    def tokens_per_second(self) -> float | None:
        """The mean over the whole run so far."""
        return self.total_tokens / self.total_seconds if self.total_tokens and self.total_seconds else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        logged: dict[str, Any] = next(
            (entry for entry in reversed(state.log_history) if "trained_seconds" in entry), {}
        )
        self.total_tokens = logged.get("trained_tokens", 0)
        self.total_seconds = logged.get("trained_seconds", 0.0)
        self._window_tokens, self._window_seconds = 0, 0.0
        self._mark = time.perf_counter()
        if not state.is_world_process_zero:
            return
        self._as_lines = args.disable_tqdm or not sys.stderr.isatty()
        if not self._as_lines:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                unit="update",
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._count_time()
        if self.tokens_at is not None:
            tokens = self.tokens_at
            self._window_tokens += tokens(state.global_step - 1) if callable(tokens) else tokens
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict,
        **kwargs: object,
    ) -> None:
        if "loss" in logs:
            self._count_time()  # reading the loss waited for the GPU
            if self._window_tokens and self._window_seconds:
                logs["tokens_per_second"] = round(self._window_tokens / self._window_seconds, 1)
                state.log_history[-1]["tokens_per_second"] = logs["tokens_per_second"]
            self._close_window()
            totals = {"trained_tokens": self.total_tokens, "trained_seconds": round(self.total_seconds, 3)}
            state.log_history[-1].update(totals)
        if not state.is_world_process_zero:
            return
        if "loss" in logs:
            shown = {"loss": f"{logs['loss']:.4f}", "perplexity": _perplexity(logs["loss"])}
            if "tokens_per_second" in logs:
                shown["tokens/s"] = f"{logs['tokens_per_second']:,.0f}"
            if self._bar is not None:
                self._bar.set_postfix(shown, refresh=True)
            else:
                shown["learning rate"] = f"{logs['learning_rate']:.3g}"
                self._say(f"{_where(state)}" + "  ".join(f"{name} {value}" for name, value in shown.items()))
            return
        losses = {
            name: value for name, value in logs.items() if name.endswith("_loss") and name != "train_loss"
        }
        for name, loss in losses.items():
            self._say(
                f"{_where(state)}{_EVALUATIONS.get(name, name.removesuffix('_loss'))}: loss {loss:.4f}  "
                f"perplexity {_perplexity(loss)}"
                + "".join(
                    f"  {other.removeprefix(name.removesuffix('loss'))} {value:.4g}"
                    for other, value in logs.items()
                    if other.startswith(name.removesuffix("loss")) and not other.endswith(_NOT_SHOWN)
                )
            )

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: DataLoader | None = None,
        **kwargs: object,
    ) -> None:
        if not state.is_world_process_zero or self._bar is None:
            return
        if self._evaluation_bar is None:
            total = len(eval_dataloader) if isinstance(eval_dataloader, Sized) else None
            self._evaluation_bar = tqdm(
                total=total, desc="evaluating", leave=False, dynamic_ncols=True, file=sys.stderr
            )
        self._evaluation_bar.update()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._evaluation_bar is not None:
            self._evaluation_bar.close()
            self._evaluation_bar = None
        self._mark = time.perf_counter()  # the time since the last update was no training

    on_predict = on_evaluate

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._mark = time.perf_counter()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._close_window()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if state.is_world_process_zero and self.tokens_per_second:
            self._say(
                f"{_where(state)}trained {self.total_tokens:,} tokens in {self.total_seconds:,.0f} s: "
                f"{self.tokens_per_second:,.0f} tokens/s"
            )

    def _count_time(self) -> None:
        now = time.perf_counter()
        self._window_seconds += now - self._mark
        self._mark = now

    def _close_window(self) -> None:
        self.total_tokens += self._window_tokens
        self.total_seconds += self._window_seconds
        self._window_tokens, self._window_seconds = 0, 0.0

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def replace_progress(trainer: Trainer, progress: TrainerCallback) -> None:
    """Puts `progress` in the place of Trainer's own bar or printer, which it adds whatever `callbacks` says."""
    for stock in (transformers.ProgressCallback, transformers.PrinterCallback):
        trainer.remove_callback(stock)
    trainer.add_callback(progress)


_EVALUATIONS = {"eval_loss": "validation", "test_loss": "test"}
_NOT_SHOWN = ("_loss", "_runtime", "_per_second", "_preparation_time")


def _where(state: TrainerState) -> str:
    """The beginning of a line; empty where nothing is trained."""
    if not state.max_steps:
        return ""
    epoch = f"  epoch {state.epoch:.2f}" if state.epoch is not None else ""
    return f"update {state.global_step}/{state.max_steps}{epoch}  "


def _perplexity(loss: float) -> str:
    return "inf" if loss > 700 else f"{math.exp(loss):,.2f}" if loss < 14 else f"{math.exp(loss):.3g}"
