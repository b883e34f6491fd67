"""The first day on a GPU, without one: every class runs forward on tensors that say they are there and hold nothing.

With a CUDA build of PyTorch (`make gpu-dry-run` makes an environment with one; no GPU and no driver are needed) the
models are built under `FakeTensorMode` on the device "cuda". An operation that mixes devices fails as it would there;
one that needs a value from the device, for which a GPU would stop and wait, fails because there is none. The backward
pass is out of reach: autograd asks the driver. Recurrent layers run step by step, without cuDNN, which asks it too.
"""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hfseq.contracts import kinds
from hfseq.contracts.families import CASES

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None, reason="needs a CUDA build of torch: make gpu-dry-run brings one"
)


# Where a state goes on from the end of each row, and rows end in different places, packed rows are needed, and cuDNN
# takes their lengths from the CPU: a decoder that begins with the last state of the encoder, and prompts (once a batch;
# not with input feeding, which goes step by step anyway).
HANDED_OVER = ("-none", "-hands-over")


class WaitError(Exception):
    """A value was copied from the GPU to the CPU, which waits for it."""


class _NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = {x.device.type for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        if "cuda" in devices and "cpu" in made:
            raise WaitError(f"{func} copies from the GPU to the CPU")
        return out


def _fake_gru_cell(input_gates, hidden_gates, hx, input_bias=None, hidden_bias=None):
    """Shapes of a fused cell for which torch has none."""
    return hx.new_empty(hx.shape), hx.new_empty(hx.shape[0], 5 * hx.shape[1])


@pytest.fixture(scope="module", autouse=True)
def shapes_of_a_gru_cell():
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_thnn_fused_gru_cell", _fake_gru_cell)
    yield
    library._destroy()


@contextmanager
def on_a_gpu(monkeypatch):
    """Everything that is made inside has the device cuda and no content."""
    monkeypatch.setattr(torch.nn.RNNBase, "flatten_parameters", lambda self: None)
    with FakeTensorMode() as mode, torch.device("cuda"), torch.backends.cudnn.flags(enabled=False):
        yield mode


def may_wait(case):
    """Expects a wait for lengths where the case needs it (a promise too: once it is mended, this fails)."""
    return pytest.raises(WaitError, match="_to_copy") if case else nullcontext()


def moved(mode, batch):
    return {
        name: mode.from_tensor(value).to("cuda") if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def inputs_of(case, *, padded):
    """As collators make them: masks where rows differ in length, columns of the labels for a masked model."""
    config = case.config()
    batch = case.batch(case.rows(config, [9, 6, 7] if padded else [8, 8, 8]), config)
    if not padded:
        batch = {
            name: value
            for name, value in batch.items()
            if not name.endswith(("attention_mask", "position_ids"))
        }
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    if case.kind in (kinds.MASKED_LM, kinds.PRETRAINING):
        slots = int((batch["labels"] != kinds.IGNORE_INDEX).sum(1).max())
        columns = torch.full((3, slots), -1)
        for row, labels in enumerate(batch["labels"]):
            found = (labels != kinds.IGNORE_INDEX).nonzero().squeeze(1)
            columns[row, : len(found)] = found
        batch["masked_positions"] = columns
    return config, batch


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "whole"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training(case, padded, monkeypatch):
    config, batch = inputs_of(case, padded=padded)
    with on_a_gpu(monkeypatch) as mode:
        model = case.model_class(config).train()
        if case.streams:
            model.carried_states.reserve(4)
        inputs = moved(mode, batch)
        hands_over = case.family == "recurrent_seq2seq" and case.name.endswith(HANDED_OVER)
        with may_wait(padded and hands_over), _NoWaiting():
            outputs = model(**inputs)
        if padded and hands_over:
            return
        loss = getattr(outputs, "loss", None)
        assert (loss is None) == (not case.kind.labels)
        assert all(p.device.type == "cuda" for p in model.parameters())
        if loss is not None:
            assert loss.device.type == "cuda"


@pytest.mark.parametrize("case", [case for case in CASES if case.streams], ids=lambda case: case.name)
def test_streams(case, monkeypatch):
    config, batch = inputs_of(case, padded=False)
    batch |= {"stream_id": torch.arange(3), "starts_anew": torch.tensor([True, False, False])}
    with on_a_gpu(monkeypatch) as mode:
        model = case.model_class(config).train()
        model.carried_states.reserve(4)
        inputs = moved(mode, batch)
        with _NoWaiting():
            for _ in range(2):
                assert model(**inputs)[0].device.type == "cuda"


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "whole"])
@pytest.mark.parametrize("case", [case for case in CASES if case.kind.generates], ids=lambda case: case.name)
def test_prompts_and_a_step_of_generation(case, padded, monkeypatch):
    config, batch = inputs_of(case, padded=padded)
    batch.pop("labels", None)
    with on_a_gpu(monkeypatch) as mode, torch.no_grad():
        model = case.model_class(config).eval()
        inputs = moved(mode, batch)
        names, step = ("input_ids", "attention_mask"), {}
        if case.kind.is_encoder_decoder:
            names = ("decoder_input_ids", "decoder_attention_mask")
            hands_over = case.family == "recurrent_seq2seq" and case.name.endswith(HANDED_OVER)
            with may_wait(padded and hands_over), _NoWaiting():
                step["encoder_outputs"] = model.get_encoder()(
                    **{name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
                )
            if padded and hands_over:
                return
            step |= {name: inputs[name] for name in ("attention_mask",) if name in inputs}
        # As generation gives them: all rows of one length, of which padding on the left is a part.
        prompt = {name: inputs[name] for name in names if name in inputs}
        loops = getattr(config, "input_feeding", False)
        ragged = padded and case.family in ("recurrent", "recurrent_seq2seq") and not loops
        with may_wait(ragged), _NoWaiting():
            first = model(
                **prompt, **step, use_cache=True, **{k: v for k, v in inputs.items() if k == "features"}
            )
        if ragged:
            return
        assert first.past_key_values is not None
        mask = prompt.get(names[1])
        if mask is not None:
            step[names[1]] = torch.cat([mask, mask.new_ones(3, 1)], 1)
        step[names[0]] = torch.zeros(3, 1, dtype=torch.long)
        with _NoWaiting():
            second = model(**step, past_key_values=first.past_key_values, use_cache=True)
        assert second.logits.shape[:2] == (3, 1)
        assert second.logits.device.type == "cuda"


def test_a_wait_for_the_device_is_found(monkeypatch):
    """The test of the test: a value asked of the device, and two devices in one operation."""
    with on_a_gpu(monkeypatch) as mode:
        value = moved(mode, {"x": torch.ones(3)})["x"]
        with pytest.raises(WaitError, match="_to_copy"), _NoWaiting():
            value.cpu()
        with pytest.raises(Exception, match="local_scalar_dense"):
            bool(value.sum() > 0)
        with pytest.raises(Exception, match="device"):
            value + torch.ones(3, device="cpu")
