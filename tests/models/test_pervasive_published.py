"""The authors' two networks against plain implementations, written from the description of each.

They share the weights and nothing else: the grid of both words is built, kernels are whole and masked, norms are
torch's, channels are concatenated, everything is [batch, channels, target, source]; padded cells are cells.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hfseq.contracts.cases import sharpen
from hfseq.models.configuration_pervasive import PervasiveConfig
from hfseq.models.grid import GridBatchNorm
from hfseq.models.modeling_pervasive import PervasiveForSeq2SeqLM

SIZES = {
    "vocab_size": 30, "decoder_vocab_size": 40, "share_encoder_decoder_embeddings": False, "embedding_size": 6,
    "num_hidden_layers": 3, "growth_size": 4, "bottleneck_size": 10, "hidden_size": 8, "intermediate_size": 12,
}  # fmt: skip
RESNET = {"form": "resnet_2020", "aggregation": "gated_max"}
PUBLISHED = {
    "2018": {"form": "densenet_2018", "kernel_size": 5},
    "2018, kernel 3": {"form": "densenet_2018", "kernel_size": 3},
    "2018, average": {"form": "densenet_2018", "kernel_size": 5, "aggregation": "average"},
    "2020": {**RESNET, "kernel_size": 11},
    "2020, padding is id 1": {**RESNET, "kernel_size": 5, "pad_token_id": 1, "decoder_start_token_id": 2},
    "2020, maximum": {**RESNET, "kernel_size": 5, "aggregation": "max"},
    "2020, untied": {**RESNET, "kernel_size": 3, "tie_word_embeddings": False},
}
SOURCE_LENGTHS, TARGET_LENGTHS = (7, 4, 1), (3, 6, 5)


def build(**fields) -> PervasiveForSeq2SeqLM:
    model = PervasiveForSeq2SeqLM(PervasiveConfig(**{**SIZES, **fields}))
    sharpen(model, 0.5, seed=0)
    for module in model.modules():
        if isinstance(module, GridBatchNorm):  # as after some training
            module.running_mean.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return model.double().eval()


def padded_batch(config: PervasiveConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 30, (3, 7), generator=generator)
    mask = torch.stack([(torch.arange(7) < n).long() for n in SOURCE_LENGTHS])
    labels = torch.randint(3, 40, (3, 6), generator=generator)
    for row, length in enumerate(TARGET_LENGTHS):
        labels[row, length:] = -100
    start = torch.full((3, 1), config.decoder_start_token_id)
    given = torch.cat([start, labels[:, :-1]], dim=1).masked_fill(labels == -100, config.pad_token_id)
    ids = ids.masked_fill(mask == 0, config.pad_token_id)
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": given, "labels": labels}


# --- the description, in code ---------------------------------------------------------------------------------------
def plain_logits(model: PervasiveForSeq2SeqLM, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Ids [batch, S] and [batch, T], padding at their ends -> [batch, T, vocabulary]."""
    config, grid = model.config, model.model.decoder.grid
    pad = config.pad_token_id
    table = model.model.encoder.embed_tokens.weight, model.model.decoder.embed_tokens.weight
    # A padded word's vector is not trained.
    s, t = F.embedding(source, table[0], padding_idx=pad), F.embedding(target, table[1], padding_idx=pad)
    if config.form == "resnet_2020":
        s, t = (x * 6**0.5 + positions(ids, pad) for x, ids in ((s, source), (t, target)))
    shape = (len(s), t.shape[1], s.shape[1], 6)
    x = torch.cat([s.unsqueeze(1).expand(shape), t.unsqueeze(2).expand(shape)], dim=-1).permute(0, 3, 1, 2)
    x = conv1x1(x, torch.cat([grid.source.weight, grid.target.weight], dim=1), grid.target.bias)
    plain = densenet_2018 if config.form == "densenet_2018" else resnet_2020
    x = plain(model, x, source != pad)  # [batch, channels, T]
    x = F.linear(x.transpose(1, 2), model.projection.weight, model.projection.bias)
    output = table[1] if config.tie_word_embeddings else model.lm_head.weight
    return F.linear(x, output, model.lm_head.bias)


def positions(ids: torch.Tensor, pad: int) -> torch.Tensor:
    """fairseq's: words are counted from pad + 1, half of the channels are sines, half cosines; padding has none."""
    vectors = torch.zeros(*ids.shape, 6, dtype=torch.float64)
    for row in range(len(ids)):
        place = pad
        for column in range(ids.shape[1]):
            if ids[row, column] == pad:
                continue
            place += 1
            for k in range(3):
                angle = torch.tensor(place / 10000.0 ** (k / 2), dtype=torch.float64)
                vectors[row, column, k], vectors[row, column, 3 + k] = angle.sin(), angle.cos()
    return vectors


def densenet_2018(model, x, words):
    grid, training = model.model.decoder.grid, model.training

    def norm_relu(norm, x):
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        return F.relu(F.batch_norm(x, mean, variance, norm.weight, norm.bias, training, 0.1, norm.eps))

    for layer in grid.layers:
        new = conv1x1(norm_relu(layer.read_norm, x), layer.bottleneck.weight)
        new = masked_conv(norm_relu(layer.bottleneck_norm, new), layer.conv)
        x = torch.cat([x, new], dim=1)
    x = conv1x1(norm_relu(grid.transition_norm, x), grid.transition.weight)
    assert x.shape[1] == (6 + 3 * 4) // 2
    x = norm_relu(grid.output_norm, x)
    if model.config.aggregation == "max":
        return x.amax(3)
    rows = []
    for row, known in zip(x, words, strict=True):
        count = int(known.sum())
        rows.append(row[:, :, :count].mean(2) * count**0.5)
    return torch.stack(rows)


def resnet_2020(model, x, words):
    grid = model.model.decoder.grid
    outputs = [x]
    for layer in grid.layers:
        y = masked_conv(conv1x1(x, layer.mix.weight, layer.mix.bias), layer.conv)
        y = y.masked_fill(~words[:, None, None, :], 0)
        x = 0.5**0.5 * (x + y)
        y = conv1x1(F.relu(conv1x1(x, layer.up.weight, layer.up.bias)), layer.down.weight, layer.down.bias)
        x = 0.5**0.5 * (x + y)
        outputs.append(x)
    x = sum(outputs) / 4
    if model.config.aggregation == "gated_max":
        value, gate = grid.aggregation.value, grid.aggregation.gate
        weight, bias = torch.cat([value.weight, gate.weight]), torch.cat([value.bias, gate.bias])
        x = F.glu(conv1x1(x, weight, bias), dim=1)
    return x.amax(3)


def conv1x1(x, weight, bias=None):
    return F.conv2d(x, weight[:, :, None, None], bias)


def masked_conv(x, conv):
    """A whole kernel times a mask: nothing below its own target position."""
    out, inner, rows, size = conv.shape
    kernel = torch.cat(
        [conv.weight.view(conv.shape), torch.full((out, inner, size - rows, size), 1e9)], dim=2
    )
    mask = torch.ones(size, size, dtype=x.dtype)
    mask[rows:] = 0
    return F.conv2d(x, kernel * mask, conv.bias, padding=size // 2, groups=conv.groups)


# --- the networks ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_logits_loss_and_gradients_are_those_of_the_description(name, training):
    """A padded batch, its padding included wherever the authors' code reads it."""
    model = build(**PUBLISHED[name]).train(training)
    batch = padded_batch(model.config)
    labels = batch.pop("labels")
    counted = labels != -100
    wanted = plain_logits(model, batch["input_ids"], batch["decoder_input_ids"])
    got = model(**batch, use_cache=False).logits
    torch.testing.assert_close(got[counted], wanted[counted], rtol=1e-9, atol=1e-9)
    expected = F.cross_entropy(wanted[counted], labels[counted])
    loss = model(**batch, labels=labels).loss
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    parameters = dict(model.named_parameters())
    for parameter, a, b in zip(
        parameters,
        torch.autograd.grad(loss, list(parameters.values())),
        torch.autograd.grad(expected, list(parameters.values())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=lambda m, p=parameter: f"{p}: {m}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_masked_padding_leaves_the_network_of_each_row_alone(name):
    model = build(**PUBLISHED[name], padding="masked")
    batch = padded_batch(model.config)
    logits = model(**batch).logits
    for row, (source, target) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        ids, given = (
            batch["input_ids"][row : row + 1, :source],
            batch["decoder_input_ids"][row : row + 1, :target],
        )
        torch.testing.assert_close(
            logits[row, :target], plain_logits(model, ids, given)[0], rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("name", ["2018", "2018, average", "2020"])
@pytest.mark.parametrize("padding", ["published", "masked"])
def test_published_padding_reaches_the_output(name, padding):
    """What the label says: more padding, other logits; masked, the same."""
    model = build(**PUBLISHED[name], padding=padding)
    batch = padded_batch(model.config)
    longer = {
        **batch,
        "input_ids": F.pad(batch["input_ids"], (0, 3), value=model.config.pad_token_id),
        "attention_mask": F.pad(batch["attention_mask"], (0, 3)),
    }
    a, b = model(**batch).logits, model(**longer).logits
    assert torch.allclose(a, b, rtol=0, atol=1e-9) == (padding == "masked")


@pytest.mark.parametrize(("name", "leaks"), [("2018", True), ("2020", False)])
def test_only_batch_statistics_see_the_future_and_only_in_training(name, leaks):
    model = build(**PUBLISHED[name])
    batch = padded_batch(model.config)
    batch.pop("labels")
    changed = {**batch, "decoder_input_ids": batch["decoder_input_ids"].clone()}
    changed["decoder_input_ids"][:, 2] = 43 - changed["decoder_input_ids"][:, 2]
    for training in (False, True):
        model.train(training)
        a, b = (model(**given, use_cache=False).logits[:, :2] for given in (batch, changed))
        assert torch.equal(a, b) != (training and leaks)


@pytest.mark.parametrize("name", PUBLISHED)
def test_steps_and_chunks_with_a_cache_are_the_whole(name):
    model = build(**PUBLISHED[name])
    batch = padded_batch(model.config)
    given = torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(5))
    inputs = {"attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        inputs["encoder_outputs"] = model.get_encoder()(batch["input_ids"], batch["attention_mask"])
        whole = model(**inputs, decoder_input_ids=given, use_cache=False).logits
        for chunks in ((1,) * 9, (3, 1, 4, 1)):
            cache, start = None, 0
            for size in chunks:
                part = given[:, start : start + size]
                output = model(**inputs, decoder_input_ids=part, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                torch.testing.assert_close(
                    output.logits, whole[:, start : start + size], rtol=1e-9, atol=1e-9
                )
                start += size


def test_sizes_are_those_of_the_released_configurations():
    """The body of each, by hand: 1x1 convolutions, kernels, norms; and the layer before the output layer."""
    words = {"vocab_size": 10, "share_encoder_decoder_embeddings": False}

    def count(**fields) -> int:
        with torch.device("meta"):
            model = PervasiveForSeq2SeqLM(PervasiveConfig(**words, **fields))
        live = [p for name, p in model.named_parameters() if "embed" not in name and "lm_head" not in name]
        return sum(p.numel() for p in live)

    reads = [128 + 32 * i for i in range(24)]
    dense = sum(2 * n + 128 * n + 2 * 128 + 32 * 128 * 3 * 5 for n in reads)
    dense += (256 * 128 + 128) + (2 * 896 + 896 * 448 + 2 * 448) + (448 * 128 + 128)
    assert count(form="densenet_2018", kernel_size=5) == dense
    block = (256 * 256 + 256) + (256 * 6 * 11 + 256) + (2 * 256 * 1024 + 1024 + 256)
    residual = 14 * block + (512 * 256 + 256) + (256 * 512 + 512) + (256 * 256 + 256)
    fields = {"embedding_size": 256, "num_hidden_layers": 14, "kernel_size": 11}
    assert count(**fields, form="resnet_2020", aggregation="gated_max") == residual


def test_initial_weights_are_the_authors():
    """Standard deviations: torch's uniform ones 1 / sqrt(3 fan), Glorot's sqrt(2 / (in + out)), whole kernels' fans."""
    torch.manual_seed(0)
    model = PervasiveForSeq2SeqLM(PervasiveConfig(form="densenet_2018", vocab_size=500, kernel_size=5))
    grid = model.model.decoder.grid
    deviations = {
        model.lm_head.weight: 0.01,
        grid.source.weight: (3 * 256) ** -0.5,
        grid.target.bias: (3 * 256) ** -0.5,
        grid.layers[3].bottleneck.weight: (3 * 224) ** -0.5,
        grid.layers[3].conv.weight: (3 * 128 * 25) ** -0.5,
        grid.transition.weight: (3 * 896) ** -0.5,
        model.projection.weight: (3 * 448) ** -0.5,
    }
    model = PervasiveForSeq2SeqLM(
        PervasiveConfig(
            form="resnet_2020", aggregation="gated_max", vocab_size=500, embedding_size=256, kernel_size=11,
            num_hidden_layers=2, output_dropout=0.2,
        )
    )  # fmt: skip
    grid = model.model.decoder.grid
    deviations |= {
        model.lm_head.weight: 1 / 16,
        grid.source.weight: (2 / 768) ** 0.5,
        grid.layers[1].mix.weight: (3 * 256) ** -0.5,
        grid.layers[1].conv.weight: (3 * 121) ** -0.5,
        grid.layers[1].conv.bias: (3 * 121) ** -0.5,
        grid.layers[1].up.weight: (2 / 1280) ** 0.5,
        grid.aggregation.value.weight: (2 / 768) ** 0.5,
        model.projection.weight: 0.8 / 256,
    }
    for weight, deviation in deviations.items():
        assert weight.std().item() == pytest.approx(deviation, rel=0.2)
    assert not model.get_input_embeddings().weight[0].any()  # padding
    assert not grid.target.bias.any() and not grid.layers[1].up.bias.any()
