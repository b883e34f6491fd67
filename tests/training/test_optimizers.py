"""Parameter groups, Muon against independent computations, and what Trainer is handed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_optimizer import is_optimizer_factory

from hfseq import GRUConfig, GRUForCausalLM, LSTMConfig, LSTMForCausalLM
from hfseq.training.averaging import NTASGD
from hfseq.training.optimizers import (
    Muon,
    build_adamw,
    build_muon,
    optimizer_factory,
    orthogonalized,
    parameter_groups,
)


def tiny_lstm(**fields) -> LSTMForCausalLM:
    torch.manual_seed(0)
    return LSTMForCausalLM(
        LSTMConfig(
            **{"vocab_size": 20, "embedding_size": 6, "hidden_size": 8, "num_hidden_layers": 2, **fields}
        )
    )


def names_of(model: nn.Module, parameters) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in parameters}


def train(  # on noise, or on the same batch
    model: nn.Module, optimizer: torch.optim.Optimizer, updates: int, scheduler=None, ids=None
) -> list[float]:
    generator = torch.Generator().manual_seed(updates)
    losses = []
    for _ in range(updates):
        batch = torch.randint(20, (3, 7), generator=generator) if ids is None else ids
        loss = model(input_ids=batch, labels=batch, shift_labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


class TestFlatParameters:
    """What DeepSpeed's ZeRO hands an optimiser: for each group one vector of all its parameters."""

    @staticmethod
    def flatten(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """The vectors, which the groups hold from now on."""
        vectors = []
        for group in optimizer.param_groups:
            vector = nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))
            vector.grad = torch.cat([p.grad.flatten() for p in group["params"]])
            group["params"] = [vector]
            vectors.append(vector)
        return vectors

    def test_adamw_makes_the_same_step(self):
        one, two = tiny_lstm(), tiny_lstm()
        ids = torch.arange(14).view(2, 7)
        for model in (one, two):
            model(input_ids=ids, labels=ids, shift_labels=ids).loss.backward()
        expected, flat = (
            build_adamw(one, lr=0.1, weight_decay=0.1),
            build_adamw(two, lr=0.1, weight_decay=0.1),
        )
        groups = [list(group["params"]) for group in expected.param_groups]
        vectors = self.flatten(flat)
        expected.step()
        flat.step()
        for group, vector in zip(groups, vectors, strict=True):
            torch.testing.assert_close(vector, torch.cat([p.detach().flatten() for p in group]))

    @pytest.mark.parametrize("split_gates", [False, True])
    def test_muon_says_what_it_needs(self, split_gates):
        model = tiny_lstm()
        ids = torch.arange(14).view(2, 7)
        model(input_ids=ids, labels=ids, shift_labels=ids).loss.backward()
        optimizer = build_muon(model, lr=0.1, split_gates=split_gates)
        self.flatten(optimizer)
        with pytest.raises(
            ValueError, match=r"parameter of shape \[\d+\] for a matrix.*'adamw', or shard with FSDP2"
        ):
            optimizer.step()


class TestParameterGroups:
    def test_recurrent_matrices_decay_and_embedding_and_biases_do_not(self):
        model = tiny_lstm()  # tied, with a projection
        decayed, plain = parameter_groups(model, 0.1)
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
        matrices = {f"model.blocks.0.rnn.weight_{x}_l{i}" for x in ("ih", "hh") for i in (0, 1)}
        assert names_of(model, decayed["params"]) == matrices | {"projection.weight"}
        assert "model.embed_tokens.weight" in names_of(model, plain["params"])
        together = decayed["params"] + plain["params"]
        assert len(together) == len({id(p) for p in together}) == len(list(model.parameters()))

    def test_an_untied_output_layer_decays(self):
        model = tiny_lstm(tie_word_embeddings=False)
        decayed, _ = parameter_groups(model, 0.1)
        assert "lm_head.weight" in names_of(model, decayed["params"])

    def test_norms_and_frozen_parameters(self):
        model = nn.ModuleDict({"norm": nn.LayerNorm(4), "linear": nn.Linear(4, 4), "frozen": nn.Linear(4, 4)})
        model["frozen"].requires_grad_(False)
        decayed, plain = parameter_groups(model, 0.1)
        assert names_of(model, decayed["params"]) == {"linear.weight"}
        assert names_of(model, plain["params"]) == {"norm.weight", "norm.bias", "linear.bias"}

    def test_no_empty_groups(self):
        assert len(parameter_groups(nn.Embedding(3, 2), 0.1)) == 1


class TestOrthogonalized:
    @pytest.mark.parametrize("shape", [(3, 8, 8), (2, 12, 5), (2, 5, 12)])
    def test_keeps_the_singular_vectors_and_levels_the_values(self, shape):
        torch.manual_seed(0)
        x = torch.randn(shape, dtype=torch.float64)
        u, _, v = torch.linalg.svd(x, full_matrices=False)
        levels = (u.mT @ orthogonalized(x) @ v.mT).diagonal(dim1=1, dim2=2)
        assert levels.min() > 0.3 and levels.max() < 1.3
        off_diagonal = u.mT @ orthogonalized(x) @ v.mT - torch.diag_embed(levels)
        assert off_diagonal.abs().max() < 1e-9

    def test_zero_stays_zero(self):
        assert not orthogonalized(torch.zeros(1, 3, 3)).any()


class TestMuon:
    def test_matches_torch_muon_on_each_gate(self):
        """torch's Muon iterates in bfloat16: it agrees to that precision, on the four gates held apart."""
        torch.manual_seed(0)
        ours = nn.LSTM(6, 8)
        gates = [nn.Parameter(gate.detach().clone()) for gate in ours.weight_hh_l0.chunk(4)]
        before = ours.weight_hh_l0.detach().clone()
        optimizer = build_muon(ours, lr=0.01, weight_decay=0.1, split_gates=True)
        reference = torch.optim.Muon(gates, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for _ in range(3):
            gradient = torch.randn_like(before)
            for parameter in ours.parameters():
                parameter.grad = torch.zeros_like(parameter)
            ours.weight_hh_l0.grad = gradient
            for gate, part in zip(gates, gradient.chunk(4), strict=True):
                gate.grad = part.clone()
            optimizer.step()
            reference.step()
        change, expected = ours.weight_hh_l0 - before, torch.cat(list(gates)) - before
        assert (change - expected).norm() < 0.02 * expected.norm()
        stacked = torch.cat([p.detach() for p in gates]) - before
        assert stacked.norm() > 0.01  # it moved at all

    @pytest.mark.parametrize("split_gates", [True, False])
    def test_gates_are_split_only_on_request(self, split_gates):
        gru = GRUForCausalLM(GRUConfig(vocab_size=20, embedding_size=6, hidden_size=8))
        optimizer = build_muon(gru, lr=0.01, split_gates=split_gates)
        counts = {group["gates"] for group in optimizer.param_groups}
        assert counts == ({0, 1, 3} if split_gates else {0, 1})  # 1: the projection

    def test_tables_biases_and_the_output_layer_go_to_adamw(self):
        model = tiny_lstm(tie_word_embeddings=False)
        optimizer = build_muon(model, lr=0.01, weight_decay=0.1)
        by_muon = [p for group in optimizer.param_groups if group["gates"] for p in group["params"]]
        assert names_of(model, by_muon) == {
            f"model.blocks.0.rnn.weight_{x}_l{i}" for x in ("ih", "hh") for i in (0, 1)
        }
        everything = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(everything) == len({id(p) for p in everything}) == len(list(model.parameters()))

    def test_the_rest_moves_exactly_as_under_adamw(self):
        model = tiny_lstm()
        other = copy.deepcopy(model)
        train(model, build_muon(model, lr=0.01, weight_decay=0.1), 1)
        train(other, build_adamw(other, lr=0.01, weight_decay=0.1), 1)
        same = {
            n
            for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True)
            if torch.equal(p, q)
        }
        assert same == {n for n, p in model.named_parameters() if p.ndim < 2 or "embed_tokens" in n}

    def test_update_has_the_size_of_adamws(self):
        model = tiny_lstm(hidden_size=32, embedding_size=32)
        before = model.model.blocks[0].rnn.weight_hh_l0.detach().clone()
        train(model, build_muon(model, lr=0.01), 1)
        rms = (model.model.blocks[0].rnn.weight_hh_l0 - before).square().mean().sqrt().item()
        assert 0.1 * 0.01 < rms < 0.3 * 0.01  # AdamW's is 0.2 ... 0.4 of the learning rate

    def test_loaded_state_continues_to_the_bit_under_a_schedule(self):
        def start():
            model = tiny_lstm()
            optimizer = build_muon(model, lr=0.01, weight_decay=0.1)
            return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 / (1 + s))

        model, optimizer, scheduler = start()
        train(model, optimizer, 3, scheduler)
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
        train(model, optimizer, 4, scheduler)

        resumed, optimizer, scheduler = start()
        for part, state in zip((resumed, optimizer, scheduler), saved, strict=True):
            part.load_state_dict(state)
        train(resumed, optimizer, 4, scheduler)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), resumed.parameters(), strict=True))
        assert {group["lr"] for group in optimizer.param_groups} == {0.01 / 8}

    def test_parameters_without_gradient_are_left_alone(self):
        model = nn.ModuleDict({"used": nn.Linear(3, 3), "unused": nn.Linear(3, 3)})
        before = model["unused"].weight.detach().clone()
        optimizer = build_muon(model, lr=0.1, weight_decay=0.5)
        model["used"](torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert torch.equal(model["unused"].weight, before)

    def test_a_model_without_matrices_is_refused(self):
        with pytest.raises(ValueError, match="choose optimizer 'adamw'"):
            build_muon(nn.Embedding(3, 2), lr=0.1)

    def test_closure(self):
        model = nn.Linear(2, 2)

        def closure():
            loss = model(torch.ones(1, 2)).square().sum()
            loss.backward()
            return loss.item()

        assert build_muon(model, lr=0.1).step(closure) > 0


class TestFactory:
    @pytest.mark.parametrize("name", ["adamw", "ntasgd", "muon"])
    def test_trainer_takes_it_for_a_factory_and_it_learns(self, name, tmp_path):
        rate, decay = (2.0, 1e-6) if name == "ntasgd" else (0.02, 0.01)
        args = TrainingArguments(output_dir=tmp_path, learning_rate=rate, weight_decay=decay, use_cpu=True)
        factory, kwargs = optimizer_factory(name, args)
        assert is_optimizer_factory(factory)
        model = tiny_lstm()
        optimizer = factory()(model, **kwargs)
        assert isinstance(optimizer, {"adamw": torch.optim.AdamW, "ntasgd": NTASGD, "muon": Muon}[name])
        ids = torch.arange(21).view(3, 7) % 4
        losses = train(model, optimizer, 60, ids=ids)
        assert losses[-1] < 0.7 * losses[0]

    def test_arguments_arrive(self, tmp_path):
        args = TrainingArguments(
            output_dir=tmp_path,
            learning_rate=0.3,
            weight_decay=0.7,
            adam_beta1=0.8,
            adam_epsilon=1e-3,
            use_cpu=True,
        )
        for name in ("adamw", "muon"):
            factory, kwargs = optimizer_factory(name, args)
            groups = factory()(tiny_lstm(), **kwargs).param_groups
            assert {g["lr"] for g in groups} == {0.3} and {g["weight_decay"] for g in groups} == {0.7, 0.0}
            assert groups[-1]["betas"] == (0.8, 0.999) and groups[-1]["eps"] == 1e-3
        factory, kwargs = optimizer_factory("ntasgd", args, nonmono=2)
        (group,) = factory()(tiny_lstm(), **kwargs).param_groups
        assert (group["lr"], group["weight_decay"], group["nonmono"]) == (0.3, 0.7, 2)

    def test_unknown_name(self, tmp_path):
        with pytest.raises(ValueError, match="'sgd': choose one of adamw, ntasgd, muon"):
            optimizer_factory("sgd", TrainingArguments(output_dir=tmp_path, use_cpu=True))
