"""pipeline("translation") on tiny untrained models: ours, and transformers' own Marian."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import AutoTokenizer, MarianMTModel, pipeline, pipelines

import hfseq
from hfseq import LSTMConfig, LSTMForCausalLM, TransformerConfig, TransformerForSeq2SeqLM, convert, data
from hfseq.contracts.cases import sharpen
from hfseq.data.encoding import CorpusEncoder
from hfseq.pipelines import TranslationPipeline, register
from hfseq.registration import when_imported
from hfseq.training import translate

TEXT = [f"Two men walk {n} dogs through the park." for n in range(30)]
LINES = ["Two dogs.", "The men walk through the park with 7 dogs.", "  ", "park"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model and its tokenizer in one directory."""
    folder = tmp_path_factory.mktemp("ours")
    tokenizer = data.train_tokenizer(TEXT, "bpe", 300, translation=True)
    config = TransformerConfig(
        d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=40,
        decoder_start_token_id=tokenizer.bos_token_id, **data.tokenizer_config_fields(tokenizer),
    )  # fmt: skip
    model = TransformerForSeq2SeqLM(config)
    with torch.no_grad():
        sharpen(model, 0.6, seed=0)
    model.generation_config.update(
        no_repeat_ngram_size=1, suppress_tokens=data.surplus_ids(tokenizer, config.vocab_size)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def marian(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("marian")
    convert.export_model(hfseq.hub.load_checkpoint(checkpoint), folder, "marian")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


def by_hand(model, tokenizer, line: str, **options) -> list[str]:
    inputs = tokenizer(line, return_tensors="pt")
    options.setdefault("max_length", min(2 * inputs["input_ids"].shape[1] + 10, 40))
    return tokenizer.batch_decode(model.generate(**inputs, **options), skip_special_tokens=True)


def test_it_translates_as_generate_does(checkpoint):
    translate = pipeline("translation", model=str(checkpoint), device="cpu")
    assert type(translate) is TranslationPipeline and type(translate.model) is TransformerForSeq2SeqLM
    (result,) = translate(LINES[0])
    assert list(result) == ["translation_text"]
    assert [result["translation_text"]] == by_hand(translate.model, translate.tokenizer, LINES[0])
    assert result["translation_text"]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_several_texts_in_order_and_blank_ones_blank(checkpoint, batch_size):
    translate = pipeline("translation", model=str(checkpoint), device="cpu")
    texts = [r["translation_text"] for r in translate(LINES, batch_size=batch_size, max_length=20)]
    for line, text in zip(LINES, texts, strict=True):
        hand = by_hand(translate.model, translate.tokenizer, line, max_length=20)
        assert [text] == hand if line.strip() else text == ""
    assert len(set(texts)) == 4
    assert [r[0]["translation_text"] for r in translate((line for line in LINES), max_length=20)] == texts


def test_special_tokens_that_a_source_spells_out_are_text(checkpoint):
    translator = pipeline("translation", model=str(checkpoint))
    tokenizer, line = translator.tokenizer, "Two </s> dogs"
    as_text = [*CorpusEncoder(tokenizer).encode([line])[0].tolist(), tokenizer.eos_token_id]
    assert translator.preprocess(line)["input_ids"][0].tolist() == as_text
    special = translator.preprocess(line, special_tokens_in_text=True)["input_ids"][0].tolist()
    assert special.count(tokenizer.eos_token_id) == 2
    ids = translator.model.generate(torch.tensor([as_text]), max_new_tokens=6)
    alone = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert translate(translator.model, tokenizer, [line], max_new_tokens=6) == [alone]
    assert translator(line, max_new_tokens=6)[0]["translation_text"] == alone


def test_options_of_generate_when_made_and_when_called(checkpoint):
    beams = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6}
    once = pipeline("translation", model=str(checkpoint), device="cpu", **beams)
    called = pipeline("translation", model=str(checkpoint), device="cpu")
    a, b = once(LINES[:2], batch_size=2), called(LINES[:2], **beams)
    assert a == b and [len(row) for row in a] == [2, 2]
    assert [r["translation_text"] for r in a[0]] == by_hand(
        once.model, once.tokenizer, LINES[0], max_length=None, **beams
    )
    (one,) = once(LINES[0], num_return_sequences=1)
    assert one == a[0][0]
    config = called.model.generation_config.to_dict()
    config = type(called.model.generation_config).from_dict({**config, "max_new_tokens": 2})
    (short,) = called(LINES[0], generation_config=config)
    hand = by_hand(called.model, called.tokenizer, LINES[0], max_length=None, max_new_tokens=2)
    assert [short["translation_text"]] == hand != [called(LINES[0])[0]["translation_text"]]


def test_marian_of_plain_transformers_gives_the_same(checkpoint, marian):
    ours, theirs = (
        pipeline("translation", model=str(folder), device="cpu", num_beams=2)
        for folder in (checkpoint, marian)
    )
    assert type(theirs.model) is MarianMTModel
    assert ours(LINES, batch_size=2) == theirs(LINES, batch_size=2)


def test_two_tokenizers(checkpoint, tmp_path):
    model = TransformerForSeq2SeqLM.from_pretrained(checkpoint)
    source = AutoTokenizer.from_pretrained(checkpoint)
    target = data.train_tokenizer([text.upper() for text in TEXT], "bpe", 290, translation=True)
    model.save_pretrained(tmp_path)
    data.save_pair_tokenizers(tmp_path, source, target)
    translate = pipeline("translation", model=str(tmp_path), device="cpu", max_length=12)
    assert len(translate.target_tokenizer) == len(target) != len(source)
    given = pipeline(
        "translation", model=model, tokenizer=source, target_tokenizer=target, device="cpu", max_length=12
    )
    ids = model.generate(**source(LINES[0], return_tensors="pt"), max_length=12)
    (text,) = target.batch_decode(ids, skip_special_tokens=True)
    assert translate(LINES[0]) == given(LINES[0]) == [{"translation_text": text}]


def test_importing_hfseq_registers_it_without_loading_pipelines():
    code = (
        "import sys, hfseq\n"
        "assert 'transformers.pipelines' not in sys.modules and 'hfseq.pipelines' not in sys.modules\n"
        "finders = len(sys.meta_path)\n"
        "from transformers import pipelines\n"
        "task = pipelines.check_task('translation')[1]\n"
        "assert task['impl'].__module__ == 'hfseq.pipelines', task\n"
        "assert len(sys.meta_path) == finders - 1\n"
        "try:\n"
        "    pipelines.check_task('summarization')\n"
        "except KeyError:\n"
        "    print('ready')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "ready", done.stderr


def test_it_may_be_imported_first_and_training_does_without_what_scores():
    """Before transformers' own pipelines, whose import imports it in turn; nothing that only scores is needed."""
    code = (
        "import sys\n"
        "for name in ('datasets', 'evaluate', 'pyarrow', 'sacrebleu', 'sacremoses'):\n"
        "    sys.modules[name] = None\n"
        "import hfseq.pipelines\n"
        "from transformers.pipelines import check_task\n"
        "assert check_task('translation')[1]['impl'] is hfseq.pipelines.TranslationPipeline\n"
        "import hfseq.objectives\n"
        "from hfseq.data import PairPlan\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_there_already_is_not_waited_for():
    done = []
    before = list(sys.meta_path)
    when_imported("json", lambda: done.append(1))
    assert done == [1] and sys.meta_path == before


def test_the_action_comes_after_the_import_and_once(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    before = list(sys.meta_path)
    when_imported("late_module", lambda: seen.append(sys.modules["late_module"].VALUE))
    assert not seen
    try:
        import late_module

        assert seen == [3] and late_module.VALUE == 3 and sys.meta_path == before
    finally:
        sys.modules.pop("late_module", None)


def test_a_task_that_exists_is_left_alone(monkeypatch):
    theirs = {"impl": object, "pt": ()}
    monkeypatch.setitem(pipelines.PIPELINE_REGISTRY.supported_tasks, "translation", theirs)
    register()
    assert pipelines.PIPELINE_REGISTRY.supported_tasks["translation"] is theirs


def test_what_is_refused(checkpoint):
    translate = pipeline("translation", model=str(checkpoint), device="cpu")
    with pytest.raises(ValueError, match="tokens, the model only 40 positions.*truncation=True.*'Two men"):
        translate("Two men walk. " * 20)
    assert translate("Two men walk. " * 20, truncation=True)[0]["translation_text"]
    with pytest.raises(TypeError, match=r"not of 7 \(int\)"):
        translate([7])
    model = LSTMForCausalLM(LSTMConfig(vocab_size=8, embedding_size=4, hidden_size=4, num_hidden_layers=1))
    with pytest.raises(ValueError, match="LSTMForCausalLM is no encoder-decoder"):
        pipeline("translation", model=model, tokenizer=translate.tokenizer, device="cpu")
