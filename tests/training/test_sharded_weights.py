"""Sharded by three processes, in parts of unequal size: optimisers, whole copies and files, in float64.

This file is also what runs the processes: forked from one interpreter, which has imported everything.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin

from hfseq import LSTMConfig, LSTMForCausalLM
from hfseq.contracts import CASES
from hfseq.training.optimizers import build_adamw, build_muon
from hfseq.training.sharded_weights import (
    gathered_weights,
    is_sharded,
    own_part,
    plain_class,
    save_whole_weights,
    whole_model,
)

pytestmark = pytest.mark.long

PROCESSES = 3
# 5 x 4 rows of gates and a vocabulary of 11: in three parts of 7, 7, 6 and 4, 4, 3.
SIZES = {"vocab_size": 11, "embedding_size": 6, "hidden_size": 5, "num_hidden_layers": 2}
BUILDERS = {
    "muon": lambda model: build_muon(model, lr=0.02, weight_decay=0.1),
    "muon by gate": lambda model: build_muon(model, lr=0.02, weight_decay=0.1, split_gates=True),
    "adamw": lambda model: build_adamw(model, lr=0.02, weight_decay=0.1),
}


def tiny_lstm() -> LSTMForCausalLM:
    torch.manual_seed(0)
    return LSTMForCausalLM(LSTMConfig(**SIZES)).double()  # tied


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for update in range(3):
        ids = torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(update))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def shard(model: torch.nn.Module) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (PROCESSES,))
    for module in list(model.modules()):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def work(folder: Path) -> None:
    """One process: the same training as alone, all of it on the same rows, so that no sum differs."""
    ids = torch.arange(8)[None]
    for name, build in BUILDERS.items():
        alone, sharded = tiny_lstm(), tiny_lstm()
        train(alone, build(alone))
        shard(sharded)
        assert is_sharded(sharded) and not is_sharded(alone) and plain_class(sharded) is LSTMForCausalLM
        parts = [own_part(parameter).shape[0] for parameter in sharded.parameters()]
        assert parts != [parameter.shape[0] for parameter in sharded.parameters()]
        train(sharded, build(sharded))

        expected = alone.state_dict()
        for key, weight in gathered_weights(sharded).items():
            torch.testing.assert_close(weight, expected[key], rtol=0, atol=1e-9, msg=f"{name}: {key}")
        before = torch.get_rng_state()
        with whole_model(sharded) as whole:
            assert type(whole) is LSTMForCausalLM and not whole.training and not is_sharded(whole)
            assert whole.lm_head.weight is whole.model.embed_tokens.weight
            # As often as each process likes: nobody waits for anybody.
            for _ in range(1 + torch.distributed.get_rank()):
                torch.testing.assert_close(whole(ids).logits, alone.eval()(ids).logits, rtol=0, atol=1e-9)
                whole.generate(ids, max_new_tokens=3, do_sample=False)
        assert torch.equal(torch.get_rng_state(), before)
        save_whole_weights(sharded, folder / name)
        torch.distributed.barrier()
        saved = LSTMForCausalLM.from_pretrained(folder / name, dtype=torch.float64)
        for key, weight in saved.state_dict().items():
            torch.testing.assert_close(weight, expected[key], rtol=0, atol=1e-9)
        torch.distributed.barrier()


def main(folder: str) -> None:
    children = []
    for rank in range(PROCESSES):
        child = os.fork()
        if child == 0:
            store = torch.distributed.FileStore(os.path.join(folder, "store"), PROCESSES)
            torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
            try:
                work(Path(folder))
            except BaseException:  # noqa: BLE001 - told, and the process ends
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_three_processes_train_copy_and_save_what_one_does(repository):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, folder], capture_output=True, text=True, timeout=1800,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_model_that_is_whole_is_scored_itself():
    model = tiny_lstm().train()
    with whole_model(model) as same:
        assert same is model and same.training


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_accelerate_finds_the_layers_of_every_model(case):
    """It refuses to shard a model that lacks one of the classes that `_no_split_modules` names."""
    model = case.model()
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP")
    plugin.set_auto_wrap_policy(copy.copy(model))
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"]


if __name__ == "__main__":
    main(sys.argv[1])
