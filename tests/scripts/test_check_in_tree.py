"""scripts/check_in_tree.py: the page that it writes, and what it says of models of transformers, shown without any of
our checks. Where one of these fails, transformers has changed: check that model again."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def script(repository):
    spec = importlib.util.spec_from_file_location(
        "check_in_tree", repository / "scripts" / "check_in_tree.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(script):
    """model(name) -> one of the models that are checked."""

    def make(name: str):
        class_name, fields = script.MODELS[name]
        model_class = getattr(transformers, class_name)
        torch.manual_seed(0)
        return model_class(model_class.config_class(**fields)).double().eval()

    return make


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_padding_on_the_left_learns_the_first_token(model, name):
    made = model(name)
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), IDS], 1)
    mask = (padded > 0).long()
    labels = padded.masked_fill(padded == 0, -100)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = made(input_ids=padded, attention_mask=mask, position_ids=positions, labels=labels)
    alone = made(input_ids=IDS, labels=IDS).loss
    first = torch.nn.functional.cross_entropy(output.logits[0, 1:2], IDS[0, :1])  # of a padding position
    # Of float64 logits transformers' loss is a float32 one.
    torch.testing.assert_close(output.loss.double(), ((3 * alone + first) / 4).double(), rtol=1e-5, atol=0)


def test_no_label_is_no_number(model):
    assert model("llama")(input_ids=IDS, labels=torch.full_like(IDS, -100)).loss.isnan()


def test_opt_attends_across_packed_rows(model):
    packed = torch.tensor([[9, 10, 11, *IDS[0].tolist()]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    for name, keeps_apart in (("llama", True), ("opt", False)):
        made = model(name)
        got = made(input_ids=packed, position_ids=positions, use_cache=False).logits[:, 3:]
        assert torch.allclose(got, made(input_ids=IDS).logits, atol=1e-6) == keeps_apart


def test_a_head_is_lost_when_gpt_neox_is_resumed(model, tmp_path):
    """`Trainer` loads a checkpoint by `load_state_dict(strict=False)`."""
    made = model("gpt_neox")
    made.save_pretrained(tmp_path)
    keys = model("gpt_neox").load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert keys.missing_keys == ["lm_head.weight"] and keys.unexpected_keys == ["embed_out.weight"]


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_masked_models_ignore_the_count_of_labels(model, name):
    made = model(name)
    options = {} if name == "distilbert" else {"num_items_in_batch": 12}
    assert torch.equal(made(input_ids=IDS, labels=IDS, **options).loss, made(input_ids=IDS, labels=IDS).loss)
    assert made.bfloat16()(input_ids=IDS, labels=IDS).loss.dtype == torch.bfloat16


def test_mamba_computes_in_float32_and_calls_no_hook(model):
    made, calls = model("mamba"), []
    layer = made.backbone.layers[0].mixer.dt_proj
    layer.register_forward_hook(lambda *_: calls.append(1))
    made(input_ids=IDS, labels=IDS).loss.backward()
    assert layer.weight.grad.abs().sum() > 0 and not calls
    assert made.bfloat16()(input_ids=IDS).logits.dtype == torch.float32


def test_mamba_begins_anew_with_several_tokens(model):
    made = model("mamba")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)  # or what it remembers does not show
        ids = torch.tensor([[5, 9, 6, 7, 8, 5]])
        whole = made(ids).logits[:, 3:]
        one, several = (made(ids[:, :3], use_cache=True).cache_params for _ in range(2))
        steps = torch.cat([made(ids[:, i : i + 1], cache_params=one).logits for i in (3, 4, 5)], 1)
        torch.testing.assert_close(steps, whole)
        assert (made(ids[:, 3:], cache_params=several).logits - whole).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["marian", "pegasus"])
def test_loaded_positions_are_to_be_trained_and_get_no_gradient(model, name, tmp_path):
    made = model(name)
    made.save_pretrained(tmp_path)
    loaded = type(made).from_pretrained(tmp_path)
    names = [f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")]
    loaded(input_ids=IDS, labels=IDS).loss.backward()
    for found, trained in ((made, False), (loaded, True)):
        positions = [found.get_parameter(name) for name in names]
        assert [p.requires_grad for p in positions] == [trained] * 2 and all(
            p.grad is None for p in positions
        )


@pytest.mark.parametrize(
    ("name", "called"), [("marian", True), ("bart", False), ("pegasus", False), ("t5", False)]
)
def test_the_shared_table_is_never_called(model, name, called):
    made, calls = model(name), []
    made.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    made(input_ids=IDS, labels=IDS)
    assert bool(calls) == called


def test_the_end_is_forced_by_the_config(model):
    made = model("bart")
    assert made.generation_config.forced_eos_token_id == made.config.eos_token_id == 2
    assert made.generate(IDS, max_new_tokens=4, do_sample=False)[0, -1] == 2


def test_the_page_says_what_was_found_and_why(script):
    passed = {contract.key: ["passed", []] for contract in script.CONTRACTS}
    lost = [
        "shuffled rows: weights: gpt_neox.embed_in.weight differs in 384 of 640 entries, by up to 4.335e-03"
    ]
    results = {
        "llama": {**passed, "exporting": ["does not apply", ["of ours alone"]]},
        "gpt_neox": {**passed, "resuming": ["FAILED", lost]},
    }
    page = script.table(json.loads(json.dumps(results)))
    assert "| gpt_neox (`GPTNeoXForCausalLM`) | holds |" in page and "**1**" in page
    assert f"- resuming: {lost[0]} (`save_pretrained` calls the head" in page
    assert "- exporting: of ours alone (llama)" in page
    assert "Not run yet: gpt2, opt, mamba," in page
    assert script.reason("numerics", "bfloat16: weights in bfloat16 gave logits in torch.float32").startswith(
        " (by"
    )
    assert script.reason("padding", "something that nobody knows") == ""


def test_what_a_subprocess_printed_is_told_once(script):
    details = "exit status 1\n[rank0]:   - work ddp: /tmp/x differs\n[rank1]:   - work ddp: /tmp/x differs\n"
    assert script.findings(details, "/tmp/x") == ["work ddp: checkpoint differs"]
