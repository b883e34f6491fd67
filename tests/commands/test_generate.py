"""hfseq generate on a tiny untrained language model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from hfseq import LSTMForCausalLM, data

GREEDY = ["--do_sample", "false"]


def test_prompt(run, language_model):
    assert run("generate", language_model, "--prompt", "In the year").startswith("In the year")


def test_lines_keep_their_order_and_are_what_each_gives_alone(run, language_model):
    lines = ["In the year 3 the king", "and", "", "the city", "In the"]
    options = [*GREEDY, "--max_new_tokens", "8", "--batch_size=2"]
    together = run("generate", language_model, *options, stdin="\n".join(lines) + "\n")
    for line in lines:
        if line:
            assert run("generate", language_model, *options, "--prompt", line) in together
    starts = [together.index(line) for line in ("In the year 3", "the city")]
    assert starts == sorted(starts)


def test_the_seed_decides(run, language_model):
    words = [language_model, "--prompt", "In", "--temperature", "2.0", "--seed"]
    assert run("generate", *words, "1") == run("generate", *words, "1") != run("generate", *words, "2")


def new_tokens(directory, text: str, prompt: str) -> int:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return len(tokenizer(text.removesuffix("\n")).input_ids) - len(tokenizer(prompt).input_ids)


@pytest.fixture(scope="module")
def endless(language_model, tmp_path_factory):
    """The same model, which never ends a text, and whose generation_config has a length of its own."""
    folder = tmp_path_factory.mktemp("endless")
    model = LSTMForCausalLM.from_pretrained(language_model)
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    letters = [i for i in range(len(tokenizer)) if tokenizer.decode([i]).strip().isalpha()]
    others = sorted(set(range(model.config.vocab_size)) - set(letters))
    model.generation_config.suppress_tokens = others
    model.generation_config.max_new_tokens = 5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ([], 60),  # this command's own
        (["--max_new_tokens", 9], 9),
        (["--max_length=7"], 7),
        (["--min_new_tokens", 70], 70),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_how_long_a_text_is(endless, options, length, monkeypatch, run):
    """The command's default gives way to whatever option says how long."""
    lengths = []
    generate = LSTMForCausalLM.generate

    def spy(self, *args, **kwargs):
        ids = generate(self, *args, **kwargs)
        prompt = 0 if "--max_length=7" in options else kwargs["input_ids"].shape[1]
        lengths.append(ids.shape[1] - prompt)
        return ids

    monkeypatch.setattr(LSTMForCausalLM, "generate", spy)
    run("generate", endless, *GREEDY, "--prompt", "In the", *options)
    assert lengths == [length]


def test_stop_strings(endless, run):
    whole = run("generate", endless, *GREEDY, "--prompt", "In").removesuffix("\n")
    stop = whole[10:14]
    expected_end = whole.index(stop, 2) + len(stop)
    for option in ([f"--stop_strings={stop}"], ["--stop_strings", json.dumps([stop, "~~"])]):
        text = run("generate", endless, *GREEDY, "--prompt", "In", *option).removesuffix("\n")
        # a token may hold letters after the string
        assert whole.startswith(text) and expected_end <= len(text) < expected_end + 12 < len(whole)


def test_a_model_of_transformers_without_a_padding_token(run, language_model, tmp_path):
    """Of any architecture; lines of several lengths are padded with what the attention mask hides."""
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    config = LlamaConfig(
        vocab_size=data.padded_vocab_size(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    options = [*GREEDY, "--max_new_tokens", 6]
    together = run("generate", tmp_path, *options, stdin="In the year 3 the king\nand\n")
    assert run("generate", tmp_path, *options, "--prompt", "and") in together


def test_bytes_that_are_not_utf8_on_standard_input(refused, language_model):
    message = refused("generate", language_model, stdin=b"In the\nna\xefve\n")
    assert (
        "standard input, line 2: byte 0xef" in message and "is not UTF-8" in message and "iconv -f" in message
    )
    message = refused("generate", language_model, "--prompt", "na\udcefve")
    assert "--prompt holds bytes that are not UTF-8" in message


def test_standard_input_has_the_lines_of_files(run, refused, language_model):
    words = [language_model, *GREEDY, "--max_new_tokens", 1]
    assert "character of a text" in refused("generate", *words, stdin=b"In\0the\n")
    assert run("generate", *words, stdin="In\u2028the\r\n").startswith("In\u2028the")


def test_special_tokens_that_a_prompt_spells_out_are_text(run, language_model):
    words = [language_model, *GREEDY, "--max_new_tokens", 1, "--prompt", "In <|endoftext|> the"]
    assert run("generate", *words).startswith("In <|endoftext|> the")
    assert run("generate", *words, "--special_tokens_in_text").startswith("In  the")


def test_a_byte_order_mark_is_dropped(run, language_model):
    words = [language_model, *GREEDY, "--max_new_tokens", 4]
    assert run("generate", *words, stdin=b"\xef\xbb\xbfIn the\n") == run("generate", *words, stdin="In the\n")


def test_bad_input(refused, language_model, tmp_path):
    prompt = [language_model, "--prompt", "a"]
    assert "nothing to continue" in refused("generate", language_model)
    assert "--option value pairs" in refused("generate", *prompt, "--num_beams")
    for wrong in ("0", "-1", "two", "1.5", "true"):
        message = refused("generate", *prompt, "--num_beams", wrong)
        assert f"--num_beams must be a whole number of at least 1, not '{wrong}'" in message
    assert "--max_new_tokens must be" in refused("generate", *prompt, "--max_new_tokens=0")
    assert "is no value in YAML" in refused("generate", *prompt, "--eta_cutoff", "[1")
    assert "Did you mean 'num_beams'?" in refused("generate", *prompt, "--num_beamz", "3")
    assert "--batch_size must be at least 1" in refused("generate", *prompt, "--batch_size", "0")
    assert "--seed must be between" in refused("generate", *prompt, "--seed", "-1")
    assert "no device 'cuda:99' here" in refused("generate", *prompt, "--device", "cuda:99")
    assert f"No checkpoint at {tmp_path / 'nowhere'}" in refused(
        "generate", tmp_path / "nowhere", "--prompt", "a"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "0"], "--temperature must be a number above 0, not '0'"),
        (["--temperature", ".nan"], "--temperature must be a number above 0"),
        (["--top_p", "2"], "--top_p must be a number above 0 and at most 1, not '2'"),
        (["--top_k", "2.5"], "--top_k must be a whole number of at least 0"),
        (["--length_penalty", "x"], "--length_penalty must be a number, not 'x'"),
        (["--min_length", "abc"], "--min_length must be a whole number"),
        (["--min_new_tokens=-4"], "--min_new_tokens must be a whole number of at least 0"),
        (["--do_sample", "maybe"], "--do_sample must be true or false, not 'maybe'"),
        (["--do_sample", "1"], "--do_sample must be true or false, not '1'"),
        (["--stop_strings", ""], "--stop_strings is empty"),
        (["--stop_strings", "[a, '']"], "--stop_strings is empty"),
        (["--suppress_tokens", "[a]"], "--suppress_tokens must be an id, or a list of ids"),
        (["--max_time", "-1"], "--max_time must be a number above 0"),
        (["--max_length", "6", "--max_new_tokens", "3"], "--max_new_tokens and --max_length say the same"),
        (["--min_length", "50", "--max_length", "6"], "--min_length 50 is more than --max_length 6"),
        (
            ["--num_return_sequences", "4", "--num_beams", "2"],
            "--num_return_sequences 4 is more than --num_beams 2",
        ),
        (["--return_dict_in_generate", "true"], "an option of generate() that a command line cannot give"),
        (["--input_ids", "[[1]]"], "--input_ids is no option of this command or of generate()"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_values_of_generates_options(refused, language_model, monkeypatch, words, message):
    monkeypatch.setattr("hfseq.commands.generate.load_model", None)  # the work begins with it
    assert message in refused("generate", language_model, "--prompt", "a", *words)


@pytest.fixture(scope="module")
def breaking(language_model, tmp_path_factory):
    """The same model, which writes line breaks and letters in turn."""
    folder = tmp_path_factory.mktemp("breaking")
    model = LSTMForCausalLM.from_pretrained(language_model)
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    kept = {tokenizer("\n").input_ids[0], tokenizer("a").input_ids[0]}
    model.generation_config.suppress_tokens = sorted(set(range(model.config.vocab_size)) - kept)
    model.generation_config.no_repeat_ngram_size = 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_one_line_for_each(run, breaking, tmp_path):
    """A line break that a model writes parts no lines; where it can be kept, it is."""
    options = [breaking, *GREEDY, "--max_new_tokens", 6]
    shown = run("generate", *options, "--prompt", "In")
    text = shown.removesuffix("\n")
    assert "\n" in text
    assert run("generate", *options, stdin="In\nIn\n") == 2 * (text.replace("\n", " ") + "\n")
    (tmp_path / "in.txt").write_text("In\n\nIn\n")
    files = ["--input", tmp_path / "in.txt", "--output"]
    run("generate", *options, *files, tmp_path / "out.txt")
    first, blank, last = (tmp_path / "out.txt").read_text().split("\n")[:-1]
    assert first == last == text.replace("\n", " ") and blank.strip()
    run("generate", *options, *files, tmp_path / "out.jsonl", "--num_beams", 2, "--num_return_sequences", 2)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["prompt"] for record in records] == ["In", "In", "", "", "In", "In"]
    assert any("\n" in record["text"] for record in records)
    assert records[0]["text"].startswith("In")


def test_a_model_with_positions_stays_within_them(run, refused, language_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=12, **data.tokenizer_config_fields(tokenizer)
    )
    model = GPT2LMHeadModel(config)
    model.generation_config.suppress_tokens = [tokenizer.eos_token_id]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    words = [tmp_path, *GREEDY, "--prompt"]
    ids = tokenizer(run("generate", *words, "In the").removesuffix("\n"), return_tensors="pt").input_ids
    assert 5 < ids.shape[1] <= 13  # what is decoded may become other tokens, but 60 more there are not
    message = refused("generate", *words, "In the", "--max_new_tokens", 40)
    assert "tokens, and 40 more are asked for, but the model only 12 positions" in message
    assert "line 1 has" in refused("generate", *words, "In the year " * 9)


def test_a_model_that_fills_in_is_none_that_continues(refused, language_model, tmp_path):
    """BERT's two heads have the same weights; what continues a text with them reads ahead."""
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    size = data.padded_vocab_size(tokenizer)
    config = BertConfig(vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                        num_attention_heads=2, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    message = refused("generate", tmp_path, "--prompt", "In")
    assert "holds BertForMaskedLM, which fills in tokens" in message


def test_outputs_are_checked_before_the_work(refused, language_model, tmp_path, monkeypatch):
    monkeypatch.setattr("hfseq.commands.generate.load_model", None)  # the work begins with it
    prompt = [language_model, "--prompt", "a", "--output"]
    assert f"there is no folder {tmp_path / 'no'}" in refused("generate", *prompt, tmp_path / "no/out.txt")
    assert f"--output {tmp_path} is a directory" in refused("generate", *prompt, tmp_path)
    assert "cannot write in /proc" in refused("generate", *prompt, "/proc/out.txt")
    picture = [*prompt, tmp_path / "same.png", "--plot_attention"]
    assert "both name" in refused("generate", *picture, tmp_path / "same.png")
    assert "end its name in .png" in refused("generate", *picture, tmp_path / "a.xyz")


def test_another_models_tokenizer(refused, language_model, tmp_path):
    LSTMForCausalLM.from_pretrained(language_model).save_pretrained(tmp_path)
    data.train_tokenizer(["some words"], "word", 20).save_pretrained(tmp_path)
    assert "they were not made for each other" in refused("generate", tmp_path, "--prompt", "a")


@pytest.mark.long
def test_two_processes_share_the_lines(language_model, tmp_path):
    """Standard input is read once; the lines come in order, from one process."""
    words = ["generate", str(language_model), "--do_sample", "false", "--max_new_tokens", "4"]
    given = "".join(f"In the year {n}\n" for n in range(5))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outputs = []
    for launcher in ([], ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]):
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "hfseq", *words],
            capture_output=True, text=True, input=given, timeout=240, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and outputs[0].count("\n") == 5
