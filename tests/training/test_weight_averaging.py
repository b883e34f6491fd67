"""The mean of checkpoints, and starting from another run's weights."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hfseq import TransformerConfig, TransformerForSeq2SeqLM
from hfseq.training import average_weights, initialize_from, last_checkpoints, load_weights
from hfseq.training.checkpoints import write_marker


def checkpoint(folder, step, complete=True, **weights):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file(weights or {"w": torch.tensor([float(step)])}, path / "model.safetensors")
    if complete:
        write_marker(path, step, 1)
    return path


def tiny_model(**fields):
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 16}
    return TransformerForSeq2SeqLM(TransformerConfig(**{**sizes, "max_position_embeddings": 9, **fields}))


def tokenizer_of(words):
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def test_the_last_complete_ones_by_number_not_by_name(tmp_path):
    for step in (8, 9, 10, 100):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 200, complete=False)
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in last_checkpoints(tmp_path, 3)] == [
        "checkpoint-9",
        "checkpoint-10",
        "checkpoint-100",
    ]
    with pytest.raises(ValueError, match=r"has 4 complete checkpoints, not 5 to average.*save_total_limit"):
        last_checkpoints(tmp_path, 5)


def test_the_mean_is_that_of_float64(tmp_path):
    torch.manual_seed(0)
    values = [torch.randn(50) for _ in range(3)]
    paths = [
        checkpoint(tmp_path, i, w=v, half=v.bfloat16(), count=torch.tensor([i])) for i, v in enumerate(values)
    ]
    mean = average_weights(paths)
    assert torch.equal(mean["w"], torch.stack(values).double().mean(0).float())
    assert mean["half"].dtype == torch.bfloat16
    assert mean["count"].tolist() == [2]  # whole numbers have no mean


def test_only_checkpoints_of_one_run(tmp_path):
    first = checkpoint(tmp_path, 1)
    with pytest.raises(ValueError, match="other names or shapes"):
        average_weights([first, checkpoint(tmp_path, 2, w=torch.zeros(2))])
    with pytest.raises(ValueError, match="other names or shapes"):
        average_weights([first, checkpoint(tmp_path, 3, v=torch.zeros(1))])
    with pytest.raises(ValueError, match=r"has no model\.safetensors: it cannot"):
        average_weights([tmp_path])
    (tmp_path / "model.safetensors.index.json").touch()
    with pytest.raises(ValueError, match="split into several files"):
        average_weights([tmp_path])
    with pytest.raises(ValueError, match="No checkpoints"):
        average_weights([])


def test_the_mean_loads_into_the_model_with_its_ties(tmp_path):
    model, paths = tiny_model(), []
    for step in (1, 2):
        other = tiny_model()
        other.save_pretrained(tmp_path / f"checkpoint-{step}")
        paths.append((tmp_path / f"checkpoint-{step}", other))
    load_weights(model, average_weights([path for path, _ in paths]))
    expected = (paths[0][1].lm_head.weight + paths[1][1].lm_head.weight) / 2
    assert torch.allclose(model.lm_head.weight, expected)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_weights_of_another_model_are_refused():
    weights = {name: tensor for name, tensor in tiny_model().state_dict().items() if "decoder" not in name}
    with pytest.raises(ValueError, match="missing .*decoder"):
        load_weights(tiny_model(), weights)
    with pytest.raises(ValueError, match="unknown .*stranger"):
        load_weights(tiny_model(), {**tiny_model().state_dict(), "stranger": torch.zeros(1)})


class TestInitializeFrom:
    @pytest.fixture
    def saved(self, tmp_path):
        model = tiny_model()
        model.save_pretrained(tmp_path)
        tokenizer_of("abc").save_pretrained(tmp_path)
        return tmp_path, model

    def test_the_weights_come_and_the_config_stays(self, saved):
        folder, model = saved
        started = initialize_from(tiny_model(dropout=0.3, label_smoothing=0.2), tokenizer_of("abc"), folder)
        assert (started.config.dropout, started.config.label_smoothing) == (0.3, 0.2)
        theirs = model.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in started.state_dict().items())

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"encoder_layers": 2}, r"lacks model\.encoder\.layers\.1"),
            ({"decoder_ffn_dim": 4}, r"in another shape .*\[8"),
            ({"pre_norm": True}, r"lacks model\.decoder\.final_norm"),
        ],
    )
    def test_another_shape_is_refused(self, saved, fields, text):
        with pytest.raises(ValueError, match=f"{text}.*config.json"):
            initialize_from(tiny_model(**fields), tokenizer_of("abc"), saved[0])

    def test_weights_that_are_not_finite_are_refused(self, saved):
        folder, model = saved
        name, weight = next(iter(model.named_parameters()))
        weight.data.view(-1)[0] = float("nan")
        model.save_pretrained(folder)
        with pytest.raises(ValueError, match=f"{re.escape(name)} holds numbers that are not finite"):
            initialize_from(tiny_model(), tokenizer_of("abc"), folder)

    def test_a_file_that_was_cut_is_refused(self, saved):
        file = saved[0] / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-50])
        with pytest.raises(ValueError, match="initialize_from"):
            initialize_from(tiny_model(), tokenizer_of("abc"), saved[0])

    def test_the_home_directory(self, saved, monkeypatch):
        monkeypatch.setenv("HOME", str(saved[0].parent))
        started = initialize_from(tiny_model(), tokenizer_of("abc"), f"~/{saved[0].name}")
        assert torch.equal(started.lm_head.weight, saved[1].lm_head.weight)

    def test_another_vocabulary_is_refused(self, saved):
        with pytest.raises(
            ValueError, match=r"other ids \(7 tokens\) than this run's \(6\): set tokenizer.path"
        ):
            initialize_from(tiny_model(), tokenizer_of("ab"), saved[0])

    def test_no_such_checkpoint(self, tmp_path):
        with pytest.raises(ValueError, match=r"initialize_from .*nothing"):
            initialize_from(tiny_model(), tokenizer_of("abc"), str(tmp_path / "nothing"))
