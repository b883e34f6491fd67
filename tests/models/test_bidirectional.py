"""Both directions over ragged rows, against torch's own packed sequences."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hfseq import GRUConfig, GRUForCausalLM, GRUModel, LSTMConfig, LSTMModel, RNNConfig, RNNModel
from hfseq.models.modeling_recurrent import RecurrentBlock

SIZES = {
    "vocab_size": 30,
    "embedding_size": 6,
    "hidden_size": 5,
    "num_hidden_layers": 2,
    "bidirectional": True,
}
CONFIGS = {"lstm": LSTMConfig, "gru": GRUConfig, "rnn": RNNConfig}
MODELS = {"lstm": LSTMModel, "gru": GRUModel, "rnn": RNNModel}
LENGTHS = torch.tensor([7, 1, 4])


def block(name, **fields):
    torch.manual_seed(0)
    return RecurrentBlock(CONFIGS[name](**SIZES, **fields), 6, 5, 2, bidirectional=True).double()


def packed(rnn, x, lengths):
    """What torch gives for rows that end at their lengths: (outputs, final states)."""
    y, final = rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
    return pad_packed_sequence(y, total_length=len(x))[0], final if isinstance(final, tuple) else (final,)


@pytest.mark.parametrize("name", CONFIGS)
def test_ragged_rows_equal_packed_ones_in_outputs_gradients_and_final_states(name):
    layers = block(name)
    x = torch.randn(7, 3, 6, dtype=torch.double, requires_grad=True)
    expected, finals = packed(layers.rnn, x, LENGTHS)
    output, *final = layers(x, ends=LENGTHS)
    inside = (torch.arange(7).unsqueeze(1) < LENGTHS).unsqueeze(2)
    torch.testing.assert_close(output * inside, expected)
    torch.testing.assert_close(final[0], finals[0])
    weights = [x, *layers.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((output * inside).square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
    )
    output, *final = layers(x, lengths=LENGTHS)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(tuple(final), tuple(finals))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_reads_rows_as_if_alone(name, side):
    torch.manual_seed(0)
    model = MODELS[name](CONFIGS[name](**SIZES)).double().eval()
    ids = torch.randint(30, (3, 7))
    steps = torch.arange(7)
    mask = steps < LENGTHS.unsqueeze(1) if side == "right" else steps >= 7 - LENGTHS.unsqueeze(1)
    output = model(ids, attention_mask=mask.long(), output_hidden_states=True)
    assert output.past_key_values is None
    assert output.last_hidden_state.shape == (3, 7, model.config.output_size) == (3, 7, 10)
    for row in range(3):
        alone = model(ids[row][mask[row]].unsqueeze(0), output_hidden_states=True)
        for both, one in zip(output.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(both[row][mask[row]], one[0])
            assert not both[row][~mask[row]].any()


def test_weights_are_dropped_in_both_directions():
    layers = block("lstm", weight_dropout=0.5).train()
    x = torch.randn(4, 2, 6, dtype=torch.double)
    first, second = layers(x)[0], layers(x)[0]
    width = first.shape[2] // 2
    assert not torch.equal(first[..., :width], second[..., :width])
    assert not torch.equal(first[..., width:], second[..., width:])


def test_what_cannot_be_bidirectional_is_refused():
    with pytest.raises(ValueError, match="language model cannot be bidirectional.*False"):
        GRUForCausalLM(GRUConfig(**SIZES))
    model = GRUModel(GRUConfig(**SIZES)).eval()
    ids = torch.ones(1, 3, dtype=torch.long)
    for options in ({"use_cache": True}, {"stream_id": torch.zeros(1, dtype=torch.long)}):
        with pytest.raises(ValueError, match="reads the whole text at once"):
            model(ids, **options)
