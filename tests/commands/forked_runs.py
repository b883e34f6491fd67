"""Commands in groups of processes, as torchrun would start them, from one interpreter that has imported all of it.

Most of a start is imports; forked, four processes cost what one does. And sharding: accelerate looks for an accelerator
before it shards (`AcceleratorState`), and on a CPU trains with whole weights without a word. Here it is told to go on,
so that Trainer, accelerate and torch do over gloo what they do on a cluster: `fully_shard`, the optimiser's parameters
exchanged, checkpoints of either kind.

    python forked_runs.py GROUPS.json

GROUPS is a list of {"processes": n, "runs": [[command, word, ...], ...]}; each group's runs are done in their order by
the same processes. "config" is what `accelerate launch --config_file` would be given. With "sigterm_at": n each
pretraining gets SIGTERM in its n-th update. Prints a JSON list for each group: what each run of the main process ended
with (None, an exit code or the message).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import traceback
from functools import partial
from pathlib import Path

from accelerate import state as accelerate_state
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from transformers import Trainer, TrainerCallback

from hfseq.__main__ import COMMANDS
from hfseq.commands import finetune, pretrain  # noqa: F401 - imported before forking


def shard_on_the_cpu() -> None:
    """What `AcceleratorState` does for accelerators, for several processes on the CPU too."""
    settle = accelerate_state.AcceleratorState.__init__

    def settle_and_shard(self, *args, fsdp_plugin=None, **kwargs):
        settle(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=fsdp_plugin)
            accelerate_state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    accelerate_state.AcceleratorState.__init__ = settle_and_shard


def launch_environment(config: str, *words: str) -> dict[str, str]:
    """What `accelerate launch --config_file CONFIG ...` sets in the processes that it starts."""
    arguments = launch_command_parser().parse_args(["--config_file", config, *words, "-m", "hfseq"])
    arguments, _, _ = _validate_launch_command(arguments)
    environment = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


class SigtermAt(TrainerCallback):
    """Sends the main process SIGTERM in the middle of an update; it tells the others."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.update and args.process_index == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def work(rank: int, group: dict, port: int, results: Path) -> None:
    processes = group["processes"]
    if "config" in group:
        os.environ.update(launch_environment(group["config"], "--num_processes", str(processes)))
    if processes > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
    if "sigterm_at" in group:
        stopped = partial(SigtermAt, group["sigterm_at"])
        pretrain.Trainer = lambda **options: Trainer(
            **{**options, "callbacks": [*options["callbacks"], stopped()]}
        )
    ends = []
    for command, *words in group["runs"]:
        try:
            importlib.import_module(COMMANDS[command]).main(words)
            ends.append(None)
        except SystemExit as error:
            ends.append(error.code)
    if rank == 0:
        results.write_text(json.dumps(ends), encoding="utf-8")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def main(groups: str) -> None:
    shard_on_the_cpu()
    for group in json.loads(Path(groups).read_text(encoding="utf-8")):
        results, port = Path(f"{groups}.results"), free_port()
        results.unlink(missing_ok=True)
        sys.stdout.flush()
        children = []
        for rank in range(group["processes"]):
            child = os.fork()
            if child == 0:
                status = 1
                os.setsid()  # as torchrun's workers
                try:
                    # The commands' own words are for the test's log, this file's for the test.
                    os.dup2(2, 1)
                    work(rank, group, port, results)
                    status = 0
                except BaseException:  # noqa: BLE001 - told, and the process ends
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            children.append(child)
        failed = [os.waitpid(child, 0)[1] for child in children]
        if any(failed):
            sys.exit(f"processes of {group} ended with {failed}")
        print(results.read_text(encoding="utf-8"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
