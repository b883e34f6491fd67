"""A model that goes on learning from the text, against the formulas of the papers written out token by token."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from hfseq import GRUConfig, GRUForCausalLM, LSTMConfig, LSTMForCausalLM, data
from hfseq.evaluation.adaptation import DynamicEvaluation, NeuralCache, options_of, score_adapting
from hfseq.training.evaluation import score_language_model

TEXTS = [f"the king of city {n % 3} went to the king of city {n % 4}" for n in range(8)]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    tokenizer = data.train_tokenizer(TEXTS, "word", 40)
    corpus = data.Corpus.from_documents(train=TEXTS, validation=[f"{text} and back" for text in TEXTS[:4]])
    built = data.build_token_arrays(corpus, tokenizer, tmp_path_factory.mktemp("cache"))
    return built, tokenizer


@pytest.fixture(params=["tied", "projected"])
def model(request, arrays):
    torch.manual_seed(0)
    sizes = {
        "embedding_size": 6,
        "hidden_size": 8 if request.param == "projected" else 6,
        "num_hidden_layers": 2,
    }
    kind = (LSTMConfig, LSTMForCausalLM) if request.param == "tied" else (GRUConfig, GRUForCausalLM)
    made = kind[1](kind[0](**sizes, hidden_dropout=0.5, **data.tokenizer_config_fields(arrays[1])))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return made.double()


def token_by_token(model, ids: list[int]):
    """(log-probabilities [vocabulary], state of the last layer) before each target, the whole text read again."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        outputs = model(torch.tensor([ids]), output_hidden_states=True)
    return outputs.logits[0].log_softmax(-1), outputs.hidden_states[-1][0]


def ids_of(array) -> list[int]:
    return [int(i) for i in array.tokens]


def test_without_a_step_and_a_share_nothing_changes(model, arrays):
    built, _ = arrays
    plain = score_language_model(model, built["validation"], streams=1).nll
    still = DynamicEvaluation(rate=0, decay=0, tokens=3)
    for options in ({}, {"dynamic": still, "train": built["train"]}, {"cache": NeuralCache(weight=0)}):
        assert score_adapting(model, built["validation"], **options).nll == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_neural_cache_is_the_formula(model, arrays, size):
    array = arrays[0]["validation"]
    theta, weight = 0.7, 0.2
    ids = ids_of(array)
    logs, states = token_by_token(model, ids[:-1])
    nll = 0.0
    for t, target in enumerate(ids[1:]):
        p = math.exp(logs[t, target])
        kept = range(max(0, t - size), t)
        if kept:
            scores = [math.exp(theta * float(states[t] @ states[i])) for i in kept]
            p_cache = sum(s for s, i in zip(scores, kept, strict=True) if ids[i + 1] == target) / sum(scores)
            p = (1 - weight) * p + weight * p_cache
        nll -= math.log(p)
    found = score_adapting(model, array, cache=NeuralCache(size=size, theta=theta, weight=weight))
    assert found.nll == pytest.approx(nll, rel=1e-9)
    assert found.tokens == len(ids) - 1 and found.bytes == array.n_bytes


def test_dynamic_evaluation_is_the_formula(model, arrays):
    built, _ = arrays
    options = DynamicEvaluation(rate=0.02, decay=0.05, epsilon=0.01, tokens=4, batches=3)

    def loss(net, ids, state):
        """Summed, and the state after it, through which no gradient goes."""
        outputs = net(torch.tensor([ids[:-1]]), past_key_values=state, use_cache=True)
        logs = outputs.logits[0].log_softmax(-1)
        for layer in outputs.past_key_values.layers:
            layer.states = tuple(part.detach() for part in layer.states)
        return -logs.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).sum(), outputs.past_key_values

    def segments(array, streams):
        """Ids and, one further on, targets of each, as evenly long as they can be."""
        plan = data.StreamPlan(array.tokens, streams=streams, segment_length=4)
        rows = [plan[i] for i in range(len(plan))]
        return [[*row["input_ids"].tolist(), int(row["shift_labels"][-1])] for row in rows]

    # The mean square over three batches of the training text, of as many streams as there is text for.
    net, squares = copy.deepcopy(model).eval(), None
    streams = (len(ids_of(built["train"])) - 1) // (4 * 3)
    rows, states = segments(built["train"], streams), [None] * streams
    for batch in range(3):
        total, count = torch.zeros((), dtype=torch.float64), 0
        for stream, ids in enumerate(rows[batch * streams : (batch + 1) * streams]):
            part, states[stream] = loss(net, ids, states[stream])
            total, count = total + part, count + len(ids) - 1
        gradients = torch.autograd.grad(total / count, list(net.parameters()))
        squares = [g**2 / 3 + s for g, s in zip(gradients, squares or [0] * len(gradients), strict=True)]
    roots = [s.sqrt() for s in squares]
    mean = torch.cat([r.flatten() for r in roots]).mean()

    state, nll = None, 0.0
    for ids in segments(built["validation"], 1):
        part, state = loss(net, ids, state)
        nll += float(part)
        gradients = torch.autograd.grad(part / (len(ids) - 1), list(net.parameters()))
        with torch.no_grad():
            for w, g, r, first in zip(net.parameters(), gradients, roots, model.parameters(), strict=True):
                pull = (0.05 * r / mean).clamp(max=1)
                w += pull * (first - w) - 0.02 * g / (r + 0.01)
    found = score_adapting(model, built["validation"], dynamic=options, train=built["train"]).nll
    assert found == pytest.approx(nll, rel=1e-9)
    assert found != pytest.approx(score_language_model(model, built["validation"], streams=1).nll, rel=1e-3)


def test_the_model_is_left_as_it_was(model, arrays):
    built, _ = arrays
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    options = DynamicEvaluation(rate=0.001), NeuralCache()
    score_adapting(model, built["validation"], dynamic=options[0], cache=options[1], train=built["train"])
    assert model.training and all(torch.equal(before[n], value) for n, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(FloatingPointError, match="lower the rate"):
        score_adapting(
            model, built["validation"], dynamic=DynamicEvaluation(rate=1e308), train=built["train"]
        )
    assert all(torch.equal(before[n], value) for n, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        (NeuralCache, ["size"], r"'size' is no NAME=NUMBER with a name of size, theta, weight"),
        (NeuralCache, ["sise=3"], r"Did you mean 'size'"),
        (NeuralCache, ["size=0"], "size must be a whole number from 1 on, not 0"),
        (NeuralCache, ["size=1.5"], "size must be a number, not '1.5'"),
        (NeuralCache, ["weight=1"], "weight must be below 1, not 1.0"),
        (DynamicEvaluation, ["rate=-1"], "rate must be a number from 0 on, not -1.0"),
        (DynamicEvaluation, ["rate=nan"], "rate must be a number from 0 on, not nan"),
        (DynamicEvaluation, ["epsilon=0"], "epsilon must be above 0"),
    ],
)
def test_options_that_are_none(kind, words, message):
    with pytest.raises(ValueError, match=message):
        options_of(kind, words)


def test_options_of_words():
    assert options_of(NeuralCache, ["size=20", "theta=0.5"]) == NeuralCache(20, 0.5, 0.15)
    assert options_of(DynamicEvaluation, []) == DynamicEvaluation()


def test_a_training_text_is_needed(model, arrays):
    with pytest.raises(ValueError, match="needs the training text"):
        score_adapting(model, arrays[0]["validation"], dynamic=DynamicEvaluation())
