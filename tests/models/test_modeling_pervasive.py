"""Pervasive Attention against a plain network of masked kernels.

`Oracle` shares nothing with the model but its weights: it builds the grid of both word vectors, concatenates channels,
multiplies whole kernels by masks, normalises with torch's own modules, reads one pair at a time without padding, and
knows no cache.
"""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from hfseq.contracts.cases import sharpen
from hfseq.models.configuration_pervasive import PervasiveConfig
from hfseq.models.grid import Aggregation, CausalGridConv, GridBatchNorm, GrowingChannels
from hfseq.models.modeling_pervasive import GridCache, PervasiveForSeq2SeqLM, PervasiveModel

SIZES = {
    "vocab_size": 30, "embedding_size": 6, "num_hidden_layers": 3, "growth_size": 4, "bottleneck_size": 10,
    "hidden_size": 8, "intermediate_size": 12,
}  # fmt: skip
RESIDUAL = {"form": "residual", "kernel_size": 5}
VARIANTS = {
    "paper's sizes": {},
    "kernel 5, average": {"kernel_size": 5, "aggregation": "average"},
    "kernel 1": {"kernel_size": 1, "num_hidden_layers": 1},
    "attention": {"aggregation": "attention", "tie_word_embeddings": False},
    "gated maximum": {"aggregation": "gated_max"},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 40},
    "batch": {"norm": "batch"},
    "batch, average": {"norm": "batch", "aggregation": "average", "kernel_size": 5},
    "residual": {**RESIDUAL, "aggregation": "gated_max"},
    "residual, maximum": RESIDUAL,
    "residual, attention": {**RESIDUAL, "kernel_size": 11, "aggregation": "attention"},
}
FORMS = {
    "dense": {},
    "batch": {"norm": "batch"},
    "residual": {**RESIDUAL, "aggregation": "gated_max"},
    "densenet_2018": {"form": "densenet_2018"},
    "resnet_2020": {"form": "resnet_2020", "aggregation": "gated_max"},
}
GENERATOR = torch.Generator().manual_seed(0)
SOURCE_LENGTHS, TARGET_LENGTHS = (7, 4, 1), (3, 6, 5)
IDS = torch.randint(3, 30, (3, 7), generator=GENERATOR)
LABELS = torch.randint(3, 30, (3, 6), generator=GENERATOR)
MASK = torch.stack([(torch.arange(7) < n).long() for n in SOURCE_LENGTHS])
for row, length in enumerate(TARGET_LENGTHS):
    LABELS[row, length:] = -100
BATCH = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


def build(model_class=PervasiveForSeq2SeqLM, std=0.5, **fields):
    model = model_class(PervasiveConfig(**{**SIZES, **fields}))
    sharpen(model, std, seed=0)
    for module in model.modules():
        if isinstance(module, GridBatchNorm):  # as after some training
            module.running_mean.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return model.double().eval()


def pairs():
    """(source ids, ids that the decoder is given, labels) of each row, without padding."""
    shifted = torch.cat([torch.ones_like(LABELS[:, :1]), LABELS[:, :-1]], dim=1)
    for row, (source, target) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        yield IDS[row, :source], shifted[row, :target], LABELS[row, :target]


# --- the oracle -----------------------------------------------------------------------------------------------------
class Oracle:
    """The same network as its papers draw it, of a whole batch without padding; [batch, channels, target, source]."""

    def __init__(self, model: PervasiveForSeq2SeqLM):
        self.config, self.model = model.config, model
        self.grid = model.model.decoder.grid

    def logits(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """source [batch, S], target [batch, T] -> [batch, T, vocabulary]"""
        encoder, decoder = self.model.model.encoder, self.model.model.decoder
        table = encoder.embed_tokens if decoder.embed_tokens is None else decoder.embed_tokens
        s, t = encoder.embed_tokens(source), table(target)
        size = (len(source), target.shape[1], source.shape[1], -1)
        # The grid of all pairs of words, as the model never has it.
        s, t = (
            s.unsqueeze(1).expand(size).permute(0, 3, 1, 2),
            t.unsqueeze(2).expand(size).permute(0, 3, 1, 2),
        )
        x = self._dense(s, t) if self.config.form == "dense" else self._residual(s, t)
        return self.model.lm_head(self.model.projection(x))

    def _dense(self, s, t):
        grid, config = self.grid, self.config
        batch = config.norm == "batch"
        parts = (
            [s, t]
            if batch
            else [self._layer_norm(grid.source_norm, s), self._layer_norm(grid.target_norm, t)]
        )
        for layer, *shares in zip(grid.layers, grid.source_shares, grid.target_shares, strict=False):
            x = torch.cat(parts, dim=1)
            if batch:
                x = F.relu(self._batch_norm([*(share.norm for share in shares), layer.features_norm], x))
            linear = [*(share.linear for share in shares), *([layer.features] if layer.features else [])]
            x = F.conv2d(x, torch.cat([part.weight for part in linear], dim=1)[:, :, None, None])
            norm = layer.bottleneck_norm
            x = F.relu(self._batch_norm([norm], x) if batch else self._layer_norm(norm, x))
            x = self._masked_conv(layer.conv, x)
            parts.append(x if batch else F.relu(self._layer_norm(layer.output_norm, x)))
        x = torch.cat(parts, dim=1)
        if batch:
            norms = [grid.source_shares[-1].norm, grid.target_shares[-1].norm, grid.final_norm]
            x = F.relu(self._batch_norm(norms, x))
        size = config.embedding_size
        s, t, x = x[:, :size], x[:, size : 2 * size], x[:, 2 * size :]
        pooled, (s, t) = self._aggregate(x, s, t)
        return torch.cat([pooled, s, t], dim=2)

    def _residual(self, s, t):
        grid, width = self.grid, self.config.hidden_size
        x = torch.cat([s, t], dim=1)
        x = F.conv2d(x, torch.cat([grid.source.weight, grid.target.weight], dim=1)[:, :, None, None])
        half = width // 2
        for axis in (2, 3):
            for place in range(x.shape[axis]):
                for k in range(half):
                    angle = torch.tensor(place / 10000.0 ** (k / max(half - 1, 1)))
                    x.select(axis, place)[:, k] += angle.sin()
                    x.select(axis, place)[:, half + k] += angle.cos()
        for layer in grid.layers:
            y = F.relu(self._masked_conv(layer.conv, self._layer_norm(layer.conv_norm, x)))
            x = x + self._pointwise(layer.mix, y)
            y = F.relu(self._pointwise(layer.up, self._layer_norm(layer.mlp_norm, x)))
            x = x + self._pointwise(layer.down, y)
        return self._aggregate(self._layer_norm(grid.output_norm, x))[0]

    def _aggregate(self, x, *words):
        """[batch, channels, T, S] -> [batch, T, channels], and the same of each side's share of the grid"""
        aggregation, count = self.grid.aggregation, x.shape[-1]
        cells = x.permute(0, 2, 3, 1)
        words = [share.permute(0, 2, 3, 1) for share in words]
        if aggregation.kind == "average":
            return cells.sum(2) / count**0.5, [share.sum(2) / count**0.5 for share in words]
        if aggregation.kind == "attention":
            weights = aggregation.score(torch.tanh(aggregation.hidden(cells))).softmax(dim=2)
            return (cells * weights).sum(2), [(share * weights).sum(2) for share in words]
        if aggregation.kind == "gated_max":
            cells = cells * torch.sigmoid(aggregation.gate(cells))
        return cells.amax(2), [share.amax(2) for share in words]

    def _masked_conv(self, conv: CausalGridConv, x):
        """A whole kernel, its lower half multiplied by zero: nothing below its own target position."""
        out, inner, rows, size = conv.shape
        kernel = torch.zeros(out, inner, size, size, dtype=x.dtype)
        kernel[:, :, :rows] = conv.weight.view(conv.shape)
        kernel[:, :, rows:] = 1e9
        mask = torch.ones(size, size, dtype=x.dtype)
        mask[rows:] = 0
        return F.conv2d(x, kernel * mask, padding=size // 2, groups=conv.groups)

    def _layer_norm(self, norm: nn.LayerNorm, x):
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / (x.var(1, keepdim=True, correction=0) + norm.eps).sqrt()
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]

    def _batch_norm(self, norms, x):
        norms = [norm for norm in norms if norm is not None]
        names = ("running_mean", "running_var", "weight", "bias")
        values = [torch.cat([getattr(norm, name) for norm in norms]) for name in names]
        return F.batch_norm(x, *values, training=self.model.training, eps=norms[0].eps)

    def _pointwise(self, linear: nn.Linear, x):
        return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_loss_and_gradients_are_those_of_masked_kernels(name):
    """A padded batch against each pair alone. Sinusoids are float32 on both sides of the comparison's tolerance."""
    model = build(**VARIANTS[name])
    oracle = Oracle(model)
    logits = model(**BATCH).logits
    expected, total = [], 0.0
    for source, given, labels in pairs():
        row = oracle.logits(source.unsqueeze(0), given.unsqueeze(0))[0]
        expected.append(row)
        total = total + F.cross_entropy(row, labels, reduction="sum")
    tolerance = 1e-5 if model.config.form == "residual" else 1e-10
    for row, wanted in enumerate(expected):
        torch.testing.assert_close(logits[row, : len(wanted)], wanted, rtol=tolerance, atol=tolerance)
    loss = model(**BATCH).loss
    torch.testing.assert_close(loss, total / sum(TARGET_LENGTHS), rtol=tolerance, atol=tolerance)
    parameters = dict(model.named_parameters())
    got = torch.autograd.grad(loss, list(parameters.values()))
    wanted = torch.autograd.grad(total / sum(TARGET_LENGTHS), list(parameters.values()))
    for parameter, a, b in zip(parameters, got, wanted, strict=True):
        torch.testing.assert_close(
            a, b, rtol=10 * tolerance, atol=tolerance, msg=lambda m, p=parameter: f"{p}: {m}"
        )


def test_batch_statistics_are_those_of_the_published_norm():
    """Training, a batch without padding: torch's own batch norm over the concatenated grid."""
    model = build(norm="batch").train()
    source, given = IDS, torch.randint(3, 30, (3, 5), generator=torch.Generator().manual_seed(3))
    share = model.model.decoder.grid.source_shares[0].norm
    published = nn.BatchNorm2d(6).double()
    published.load_state_dict(share.state_dict(), strict=False)
    got = model(input_ids=source, decoder_input_ids=given).logits
    torch.testing.assert_close(got, Oracle(model).logits(source, given), rtol=1e-9, atol=1e-9)
    # A source vector is the same all along the target: what is counted are the cells of the grid nonetheless.
    published(model.model.encoder.embed_tokens(source).unsqueeze(1).expand(-1, 5, -1, -1).permute(0, 3, 1, 2))
    torch.testing.assert_close(share.running_mean, published.running_mean)
    torch.testing.assert_close(share.running_var, published.running_var)


def test_padding_stays_out_of_batch_statistics():
    """Longer padding on both sides changes neither loss nor gradients nor running statistics."""
    results = []
    for extra in (0, 3):
        model = build(norm="batch").train()
        loss = model(
            input_ids=F.pad(IDS, (0, extra), value=9),
            attention_mask=F.pad(MASK, (0, extra)),
            labels=F.pad(LABELS, (0, extra), value=-100),
        ).loss
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters()), *(b.clone() for b in model.buffers())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("norm", "leaks"), [("layer", False), ("batch", True)])
def test_only_batch_statistics_see_the_future_in_training(norm, leaks):
    model = build(norm=norm).train()
    given = torch.randint(3, 30, (2, 6), generator=torch.Generator().manual_seed(4))
    changed = given.clone()
    changed[:, 4] = 29 - changed[:, 4] + 3
    logits = [
        model(input_ids=IDS[:2], decoder_input_ids=ids, use_cache=False).logits[:, :4]
        for ids in (given, changed)
    ]
    assert torch.equal(*logits) != leaks


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_and_chunks_with_a_cache_are_the_whole(name):
    """O(source) a step: what the cache holds does not grow."""
    model = build(**VARIANTS[name])
    given = torch.randint(3, 30, (3, 9), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        whole = model(input_ids=IDS, attention_mask=MASK, decoder_input_ids=given, use_cache=False).logits
        encoded = model.get_encoder()(input_ids=IDS, attention_mask=MASK)
        for chunks in ((1,) * 9, (3, 1, 4, 1)):
            cache, sizes, start = None, set(), 0
            for size in chunks:
                output = model(
                    encoder_outputs=encoded, attention_mask=MASK, decoder_input_ids=given[:, start : start + size],
                    past_key_values=cache, use_cache=True,
                )  # fmt: skip
                cache = output.past_key_values
                torch.testing.assert_close(
                    output.logits, whole[:, start : start + size], rtol=1e-10, atol=1e-10
                )
                sizes.add(sum(rows.numel() for rows in cache.layers[0].states))
                start += size
            assert len(sizes) == 1


@pytest.mark.parametrize("name", ["paper's sizes", "batch", "residual"])
def test_generate_gives_the_same_tokens_without_a_cache(name):
    model = build(std=0.8, **VARIANTS[name])
    for options in ({}, {"num_beams": 4}, {"num_beams": 3, "num_return_sequences": 2}):
        options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, **options}
        runs = [
            model.generate(IDS, attention_mask=MASK, use_cache=cache, **options) for cache in (True, False)
        ]
        assert torch.equal(*runs)


@pytest.mark.parametrize("form", ["dense", "residual"])
def test_what_a_cell_can_see(form):
    """The reach of the layers along the target: (kernel - 1) / 2 rows each, and not one row more."""
    model = build(form=form, num_hidden_layers=2, kernel_size=3)
    given = torch.randint(3, 30, (1, 7), generator=torch.Generator().manual_seed(6))
    changed = given.clone()
    changed[0, 1] = 29 - changed[0, 1] + 3
    a, b = (
        model(input_ids=IDS[:1], decoder_input_ids=ids, use_cache=False).logits[0] for ids in (given, changed)
    )
    moved = [not torch.equal(x, y) for x, y in zip(a, b, strict=True)]
    assert moved == [False, True, True, True, False, False, False]


def test_checkpointing_changes_nothing():
    for form in ("dense", "residual"):
        gradients = []
        for wanted in (False, True):
            model = build(form=form).train()
            if wanted:
                model.gradient_checkpointing_enable()
            model(**BATCH).loss.backward()
            gradients.append([p.grad for p in model.parameters()])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)


def test_checkpointing_by_the_config():
    """As old configurations ask for it; the encoder, which has no layers, must not raise."""
    for model_class in (PervasiveForSeq2SeqLM, PervasiveModel):
        model = model_class(PervasiveConfig(**SIZES, gradient_checkpointing=True))
        assert all(layer.gradient_checkpointing for layer in model.get_decoder().grid.layers)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def double_by_hook(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda module, given, output: 2 * output)


def double_by_adapter(layer: nn.Linear) -> None:
    """Another class in its place, as PEFT has it."""

    class Adapted(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer.__class__ = Adapted


def double_by_parametrization(layer: nn.Linear) -> None:
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    if layer.bias is not None:
        nn.utils.parametrize.register_parametrization(layer, "bias", Doubled())


@pytest.mark.parametrize("double", [double_by_hook, double_by_adapter, double_by_parametrization])
@pytest.mark.parametrize("name", FORMS)
def test_linear_layers_are_called(name, double):
    """What hangs on a layer takes effect in training and in decoding: all outputs doubled are all weights doubled."""
    outcomes = []
    for wanted in (False, True):
        model = build(std=0.3, **FORMS[name])
        with torch.no_grad():
            for layer in [m for m in model.model.modules() if isinstance(m, nn.Linear)]:
                if wanted:
                    layer.weight.mul_(2)
                    if layer.bias is not None:
                        layer.bias.mul_(2)
                else:
                    double(layer)
            outputs, cache = [], None
            for step in range(3):
                given = LABELS[:, step : step + 1].clamp(min=1)
                output = model(IDS, MASK, given, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                outputs.append(output.logits)
        loss = model.train()(**BATCH).loss
        loss.backward()
        gradients = [layer.conv.weight.grad for layer in model.model.decoder.grid.layers]
        outcomes.append([*outputs, loss, *gradients])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", FORMS)
def test_exported_graph_holds_for_every_mask_and_size(name):
    """Traced with a mask that masks nothing: no branch may have been taken for it."""
    model = build(**FORMS[name], num_hidden_layers=2)
    padded = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": LABELS.clamp(min=1)}
    traced = {**padded, "attention_mask": torch.ones_like(MASK), "use_cache": False}
    auto = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    shapes = {key: None if key == "use_cache" else auto for key in traced}
    program = torch.export.export(model, (), traced, dynamic_shapes=shapes, strict=False).module()
    for given in (padded, {key: value[:2, :4] for key, value in padded.items()}):
        expected = model(**given, use_cache=False).logits
        torch.testing.assert_close(program(**given, use_cache=False).logits, expected)


@pytest.mark.parametrize("name", FORMS)
def test_a_compiler_sees_one_graph_of_a_padded_batch(name):
    model = build(**FORMS[name], num_hidden_layers=2).train()
    expected = model(**BATCH).loss
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**BATCH).loss, expected)


@pytest.mark.parametrize("name", FORMS)
def test_int8_weights_of_torchao(name):
    """Nearly the same logits, and generate() with the cache as without."""
    quantization = pytest.importorskip("torchao.quantization")
    sizes = {"embedding_size": 32, "growth_size": 16, "bottleneck_size": 128, "hidden_size": 64, "std": 0.1}
    model = build(**{**sizes, "kernel_size": 1, "aggregation": "max", **FORMS[name]}).float()
    linear = [m for m in model.model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        expected = model(**BATCH).logits
        quantization.quantize_(model.model, quantization.Int8WeightOnlyConfig())
        assert all(type(layer.weight).__name__ == "Int8Tensor" for layer in linear)
        assert (model(**BATCH).logits - expected).std() < 0.05 * expected.std()
        options = {"attention_mask": MASK, "max_new_tokens": 6, "num_beams": 2, "do_sample": False}
        runs = [model.generate(IDS, use_cache=cache, **options) for cache in (True, False)]
    assert torch.equal(*runs)


def test_channels_share_a_buffer_whose_gradient_is_asked_for_in_order():
    """Backward twice, for some of the parameters only, with frozen ones; nothing outlives the graph."""
    model = build(num_hidden_layers=4)  # the loss of training can be run backward only once
    loss = model(**BATCH).loss
    parameters = dict(model.named_parameters())
    first = dict(
        zip(parameters, torch.autograd.grad(loss, list(parameters.values()), retain_graph=True), strict=True)
    )
    again = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
    for name, value in zip(parameters, again, strict=True):
        torch.testing.assert_close(value, first[name])
    for name, parameter in parameters.items():
        if "layers.1." in name or "layers.2." in name:
            (alone,) = torch.autograd.grad(loss, [parameter], retain_graph=True)
            torch.testing.assert_close(alone, first[name])
    del loss
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in ("model.decoder.grid.layers.1.conv.weight", "lm_head.bias"))
    model(**BATCH).loss.backward()
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, first[name])
    alive, create = [], GrowingChannels.__init__

    def remember(self, *arguments):
        create(self, *arguments)
        alive.append(weakref.ref(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GrowingChannels, "__init__", remember)
        gc.disable()
        try:
            model(**BATCH).loss.backward()
            model(**BATCH)  # without backward
        finally:
            gc.enable()
    assert len(alive) == 2 and not any(reference() for reference in alive)


def test_weights_of_the_aggregation():
    """What each source position contributed sums to one and is nothing at padding; a maximum names the winners."""
    for kind in ("max", "average", "attention", "gated_max"):
        model = build(aggregation=kind)
        (weights,) = model(**BATCH, output_attentions=True).cross_attentions
        assert weights.shape == (3, 1, 6, 7)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1, 6, dtype=weights.dtype))
        assert not weights.masked_select(~MASK.bool()[:, None, None]).any()
    aggregation = Aggregation("max", 2)
    cells = torch.tensor([[[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]]])
    pooled, weights = aggregation(cells, None, torch.tensor([[True, True, False]]), wants_weights=True)
    assert pooled.tolist() == [[[3.0, 5.0]]]
    assert weights.tolist() == [[[0.5, 0.5, 0.0]]]


def test_channels_with_several_maxima_pick_nothing():
    """After a ReLU many channels are zero everywhere, and the first position would seem to win them all."""
    # [source, channels]
    pick = [[0.0, 0.0, 4.0], [0.0, 2.0, 1.0], [0.0, 2.0, 0.0]]  # only the third channel has one maximum
    nothing = [[0.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    cells = torch.tensor([[pick, nothing]])
    _, weights = Aggregation("max", 3)(cells, None, None, wants_weights=True)
    torch.testing.assert_close(weights[0, 0], torch.tensor([1.0, 0.0, 0.0]))
    third = 1 / 3
    expected = torch.tensor([third + 1, third + 0.5, third + 0.5]) / 3
    torch.testing.assert_close(weights[0, 1], expected)


def test_only_live_taps_are_stored():
    assert CausalGridConv(4, 6, 5).weight.shape == (6, 4 * 3 * 5)
    assert CausalGridConv(4, 4, 11, groups=4).weight.shape == (4, 1, 6, 11)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kernel_size": 4}, "kernel_size 4 must be odd"),
        ({"growth_size": 0}, "growth_size must be at least 1, not 0"),
        ({"form": "wide"}, "form must be one of dense, residual, densenet_2018, resnet_2020, not 'wide'"),
        ({"norm": "group"}, "norm must be one of layer, batch with form 'dense', not 'group'"),
        ({"aggregation": "min"}, "aggregation must be one of max, average"),
        ({"form": "residual", "norm": "batch"}, "not 'batch'. It belongs to form 'dense' or 'densenet_2018'"),
        ({"padding": "published"}, "'published' where form is one of densenet_2018, resnet_2020"),
        ({"form": "resnet_2020", "norm": "layer"}, "norm must be one of none with form 'resnet_2020'"),
        ({"form": "densenet_2018", "aggregation": "gated_max"}, "must be one of max, average with form"),
        ({"form": "resnet_2020", "embedding_size": 7}, "embedding_size 7 must be even"),
        ({"form": "residual", "hidden_size": 7}, "hidden_size 7 must be even"),
        ({"decoder_vocab_size": 50}, "share_encoder_decoder_embeddings"),
        ({"hidden_dropout": 1.0}, "hidden_dropout must be at least 0 and below 1"),
    ],
)
def test_bad_fields_are_named(fields, words):
    with pytest.raises((ValueError, StrictDataclassError), match=words):
        PervasiveConfig(**{**SIZES, **fields})


def test_bad_input_is_named():
    model, base = build(), build(PervasiveModel)
    ids = IDS[:, :3]
    with pytest.raises(ValueError, match="source has no time steps"):
        model(input_ids=ids[:, :0], labels=LABELS)
    with pytest.raises(ValueError, match="target has no time steps"):
        base(input_ids=ids, decoder_input_ids=ids[:, :0])
    with pytest.raises(ValueError, match="3 sources, but 1 targets"):
        base(input_ids=ids, decoder_input_ids=ids[:1])
    with pytest.raises(ValueError, match="refuse packed rows"):
        model(input_ids=ids, labels=LABELS, decoder_position_ids=ids)
    with pytest.raises(ValueError, match="attention_mask must be"):
        model(input_ids=ids, attention_mask=MASK, labels=LABELS)
    with pytest.raises(ValueError, match="labels must be"):
        model(input_ids=ids, decoder_input_ids=ids, labels=LABELS)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        base(decoder_input_ids=ids)
    with pytest.raises(ValueError, match="exactly one of decoder_input_ids"):
        base(input_ids=ids)
    with pytest.raises(ValueError, match="cache_implementation='static'"):
        model.generate(ids, cache_implementation="static", max_new_tokens=2)
    with pytest.raises(ValueError, match="norm 'batch'"):
        batch = build(norm="batch").train()
        batch(input_ids=ids, decoder_input_ids=ids, past_key_values=GridCache(), use_cache=True)
