"""SIGTERM and Ctrl-C: the update is finished, a checkpoint saved, and the run ends so that it can go on.

Schedulers send SIGTERM before they take a machine away, and kill some time later; `torchrun` hands it on to its
processes and kills after 30 s. Between two updates the processes agree whether one of them was told to stop (one number
over gloo; the devices are not waited for), and all save at the same update. The run ends with a code of its own:

    75    after SIGTERM (EX_TEMPFAIL of sysexits.h: not done, try again). A job script requeues on it.
    130   after Ctrl-C, as a shell has it.

Ctrl-C once more ends the process at once, without another checkpoint. SIGTERM once more does nothing: a scheduler sends
it to all processes of a job and a launcher hands it on, so that a worker gets it twice, and who will not wait has
SIGKILL. Where no training is going on the first signal ends the process: before it, and while the end is measured, the
checkpoints are as whole as they were. An evaluation that has begun is finished first, for a resumed run would not make
it again and then have another history: let the scheduler send its signal as long before the end as an evaluation takes
(SLURM: `--signal=TERM@600`).

Under `torchrun` and `accelerate launch` their own code is what a job script sees, 1 whatever a worker's is: look for
training_summary.json there, or start the processes without them (`scripts/launch/slurm.sh`).
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class StopOnSignal(TrainerCallback):
    """Saves and stops at the end of the update in which a signal came, in all processes at the same update.

    Give it to Trainer after `TrueEpoch` and before all that looks at `control.should_save`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """What training was stopped by; None: it was not."""
        self._received = 0
        self._before: dict[signal.Signals, Any] = {}
        self._group: Any = None
        self._owner = os.getpid()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.signal, self._received, self._owner = None, 0, os.getpid()
        if args.world_size > 1 and torch.distributed.get_backend() != "gloo":
            self._group = torch.distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():  # Python lets no other one listen
            self._before = {number: signal.signal(number, self._note) for number in EXIT_CODES}

    def _note(self, number: int, frame: Any) -> None:
        if self._received:
            if number == signal.SIGINT:
                self._restore()
                os.kill(os.getpid(), number)
            return
        self._received = number
        if os.getpid() == self._owner and int(os.environ.get("RANK", 0)) == 0:
            # print() is not for a handler: it may interrupt another print().
            text = f"{signal.Signals(number).name}: finishing this update, then saving. Ctrl-C now ends at once.\n"
            os.write(2, text.encode())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        number = self._received
        if args.world_size > 1:
            agreed = torch.tensor(number)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self._group)
            number = int(agreed)
        if number and state.global_step < state.max_steps:
            self.signal = signal.Signals(number)
            control.should_save = control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        # Trainer's epoch ends where its loop is left; the plan's does not.
        if self.signal is not None:
            control.should_log = control.should_evaluate = control.should_save = False
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._restore()
        if self._received and self.signal is None:  # it came in the last update: nothing is left to save
            os.kill(os.getpid(), self._received)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


__all__ = ["EXIT_CODES", "StopOnSignal"]
