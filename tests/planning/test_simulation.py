"""What a plan counts, against runs that really happen: the allocator's own record, and arithmetic done by hand."""

import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GPT2Config,
)

from hfseq import (
    EncoderConfig,
    GRUConfig,
    GRUSeq2SeqConfig,
    LSTMConfig,
    LSTMSeq2SeqConfig,
    PervasiveConfig,
    TransformerConfig,
)
from hfseq.planning import simulate
from hfseq.training.optimizers import BUILDERS

ROWS, TIME, VOCABULARY, WIDTH = 16, 40, 2048, 128
IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": WIDTH, "intermediate_size": 256}
ONE_WAY = {"hidden_size": WIDTH, "attention": None, "bidirectional": False}
SIDES = {f"{side}_{what}": value for side in ("encoder", "decoder")
         for what, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 256))}  # fmt: skip


def batch():
    ids = torch.randint(3, VOCABULARY, (ROWS, TIME), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids.clone()}


def padded():
    """With a mask: models look at its values on a CPU."""
    made = batch()
    made["attention_mask"] = torch.ones_like(made["input_ids"])
    made["attention_mask"][0, 20:] = 0
    return made


def lstm():
    return LSTMConfig(
        hidden_size=256, embedding_size=128, last_hidden_size=256, tie_word_embeddings=False, **IDS
    )


def gpt2():
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=TIME,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
    )


MODELS = {
    "lstm": (AutoModelForCausalLM, lstm, batch),
    "gru": (AutoModelForCausalLM, lambda: GRUConfig(hidden_size=256, **IDS), batch),
    "gpt2": (AutoModelForCausalLM, gpt2, batch),
    "bert": (AutoModelForMaskedLM, lambda: BertConfig(**LAYERS, **IDS), padded),
    "encoder": (AutoModelForMaskedLM, lambda: EncoderConfig(**LAYERS, **IDS, mask_token_id=3), padded),
    "transformer": (AutoModelForSeq2SeqLM, lambda: TransformerConfig(d_model=WIDTH, **SIDES, **IDS), padded),
    "lstm with attention": (AutoModelForSeq2SeqLM, lambda: LSTMSeq2SeqConfig(hidden_size=WIDTH, **IDS), padded),
    # whose rows run packed: only final states pass from one side to the other
    "lstm without attention": (AutoModelForSeq2SeqLM, lambda: LSTMSeq2SeqConfig(**ONE_WAY, **IDS), padded),
    "gru without attention": (AutoModelForSeq2SeqLM, lambda: GRUSeq2SeqConfig(**ONE_WAY, **IDS), padded),
    "pervasive": (AutoModelForSeq2SeqLM, lambda: PervasiveConfig(num_hidden_layers=3, **IDS), padded),
}  # fmt: skip


def muon(model):
    return BUILDERS["muon"](model, lr=1e-2, weight_decay=0.0, betas=(0.9, 0.95), eps=1e-8)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), foreach=False)


def allocated(model, inputs, make_optimizer, tmp_path):
    """Peak of an update that really happens, as torch's allocator recorded it, beside what was there before."""
    optimizer = make_optimizer(model)

    def update():
        model.zero_grad(set_to_none=True)
        model(**inputs).loss.backward()
        optimizer.step()

    update()
    model.zero_grad(set_to_none=True)
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [
        x for state in optimizer.state.values() for x in state.values() if isinstance(x, torch.Tensor)
    ]
    before = sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        update()
    record.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    events = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    live = peak = 0
    for event in events:
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    assert peak > 0
    return before + peak


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_what_the_allocator_records(name, tmp_path):
    auto_class, make_config, make_batch = MODELS[name]
    config = make_config()
    work = simulate(lambda: auto_class.from_config(config), make_batch(), make_optimizer=adamw)
    model = auto_class.from_config(config).train()
    real = allocated(model, make_batch(), adamw, tmp_path)
    assert work.peak_bytes == pytest.approx(real, rel=0.1)
    assert work.parameters == sum(p.numel() for p in model.parameters())
    assert work.gradient_bytes == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


def test_memory_with_muon_and_checkpointing(tmp_path):
    config = MODELS["transformer"][1]()
    plain = simulate(lambda: AutoModelForSeq2SeqLM.from_config(config), padded(), make_optimizer=muon)
    saving = simulate(
        lambda: AutoModelForSeq2SeqLM.from_config(config),
        padded(),
        make_optimizer=muon,
        gradient_checkpointing=True,
    )
    assert saving.activation_bytes < 0.8 * plain.activation_bytes
    assert saving.flops > 1.15 * plain.flops
    model = AutoModelForSeq2SeqLM.from_config(config).train()
    model.gradient_checkpointing_enable()
    assert saving.peak_bytes == pytest.approx(allocated(model, padded(), muon, tmp_path), rel=0.1)


def test_arithmetic_of_an_lstm():
    """Forward and twice that backward, of every product: two layers of four gates, and the output layer."""
    config = MODELS["lstm"][1]()
    work = simulate(lambda: AutoModelForCausalLM.from_config(config), batch())
    layers = [(config.embedding_size, 256)] + [(256, 256)] * (config.num_hidden_layers - 1)
    gates = sum(4 * hidden * (width + hidden) for width, hidden in layers)
    expected = 3 * 2 * ROWS * (TIME * gates + (TIME - 1) * VOCABULARY * 256)
    assert work.flops == pytest.approx(expected, rel=0.1)
    assert work.recurrent_steps == config.num_hidden_layers * TIME


def test_arithmetic_of_gpt2():
    """6 operations per weight and token (Kaplan et al. 2020), and attention: 4 T^2 per column forward, 10 backward."""
    config = MODELS["gpt2"][1]()
    work = simulate(lambda: AutoModelForCausalLM.from_config(config), batch())
    weights = 12 * 2 * WIDTH**2 + VOCABULARY * WIDTH
    expected = 6 * weights * ROWS * TIME + 14 * 2 * ROWS * TIME**2 * WIDTH
    assert work.flops == pytest.approx(expected, rel=0.02)


def test_arithmetic_of_grouped_convolutions():
    """torch's own formula counts the backward pass of a depthwise convolution as if it were a full one."""

    class Depthwise(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv1d(32, 32, 5, groups=32, padding=2)

        def forward(self, x):
            return type("Output", (), {"loss": self.convolution(x).sum()})

    x = torch.randn(2, 32, 10, requires_grad=True)
    assert simulate(Depthwise, {"x": x}).flops == (1 + 2) * 2 * (2 * 32 * 10) * 5


def test_a_model_of_any_size_costs_nothing():
    config = GPT2Config(n_embd=8192, n_layer=4, n_head=64)
    work = simulate(lambda: AutoModelForCausalLM.from_config(config), {**batch()}, make_optimizer=adamw)
    assert work.parameter_bytes > 13e9
    assert work.optimizer_bytes > 26e9


def test_sixteen_bits_halve_what_is_kept():
    config = MODELS["gpt2"][1]()
    make = lambda: AutoModelForCausalLM.from_config(config)  # noqa: E731
    assert (
        simulate(make, batch(), autocast=torch.bfloat16).activation_bytes
        < simulate(make, batch()).activation_bytes
    )


def test_a_model_that_looks_at_its_values_is_named():
    class Looks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, x):
            if self.weight.sum() > 0:
                return type("Output", (), {"loss": self.weight.sum()})

    with pytest.raises(ValueError, match="Looks cannot be planned"):
        simulate(Looks, {"x": torch.ones(3)})


def test_a_model_without_a_loss_is_named():
    with pytest.raises(ValueError, match="GPT2LMHeadModel computes no loss from input_ids"):
        simulate(
            lambda: AutoModelForCausalLM.from_config(MODELS["gpt2"][1]()), {"input_ids": batch()["input_ids"]}
        )
