"""scripts/launch/ and docs/cluster.md: what the launchers make of them. Nothing is started here."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)
from torch.distributed.run import get_args_parser

from hfseq.recipe import packaged_recipes

CONFIGS = ("one-gpu", "ddp", "two-nodes", "fsdp2", "zero2")


@pytest.fixture
def launch(repository):
    return repository / "scripts" / "launch"


def commands(text: str) -> list[list[str]]:
    """The lines of a page's bash blocks, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def page(repository) -> list[list[str]]:
    return commands((repository / "docs" / "cluster.md").read_text(encoding="utf-8"))


def parsed(words: list[str]):
    """What accelerate makes of `accelerate launch ...`."""
    assert words[:2] == ["accelerate", "launch"]
    return _validate_launch_command(launch_command_parser().parse_args(words[2:]))[0]


def test_every_configuration_is_accelerates_and_says_how_it_is_used(launch):
    assert {path.stem for path in launch.glob("*.yaml")} == set(CONFIGS)
    for name in CONFIGS:
        path = launch / f"{name}.yaml"
        config = load_config_from_file(str(path))
        assert not config.use_cpu and config.mixed_precision == "no"  # the recipe says it
        text = path.read_text(encoding="utf-8")
        assert f"accelerate launch --config_file scripts/launch/{name}.yaml" in text
        assert yaml.safe_load(text)["num_processes"] == config.num_processes


def test_every_command_of_the_page_is_one(page, repository, monkeypatch):
    monkeypatch.chdir(repository)
    configs = []
    for words in page:
        if words[0] == "torchrun":
            arguments = get_args_parser().parse_args(words[1:])
            assert arguments.module and arguments.training_script == "hfseq"
            trained = arguments.training_script_args
        elif words[0] == "accelerate":
            arguments = parsed(words)
            configs.append(Path(arguments.config_file).stem)
            assert arguments.module and arguments.training_script == "hfseq"
            trained = arguments.training_script_args
        elif words[0] == "sbatch":
            assert Path(words[1]).is_file()
            trained = ["pretrain", *words[2:]]
        elif words[0] == "hfseq":
            trained = words[1:]
        else:
            assert words[:3] == ["test", "-e", "outputs/mine/training_summary.json"]
            continue
        assert trained[0] == "pretrain" and trained[1] in packaged_recipes(), trained
        assert trained[2] == "--output_dir"
    assert set(configs) == set(CONFIGS)


def test_what_the_processes_of_each_are_told(page, repository, monkeypatch):
    monkeypatch.chdir(repository)
    words = {Path(words[3]).stem: words for words in page if words[0] == "accelerate"}

    command, environment = prepare_simple_launcher_cmd_env(parsed(words["one-gpu"]))
    assert command[1:4] == ["-m", "hfseq", "pretrain"]
    assert environment["ACCELERATE_USE_CPU"] == "False" and "MASTER_ADDR" not in environment

    for name in ("ddp", "fsdp2"):
        arguments = parsed([*words[name][:4], "--num_processes", "2", *words[name][6:]])
        environment = prepare_multi_gpu_env(arguments)
        assert arguments.nproc_per_node == "2" and environment["ACCELERATE_MIXED_PRECISION"] == "no"
        assert environment.get("ACCELERATE_USE_FSDP") == ("true" if name == "fsdp2" else None)

    arguments = parsed(words["two-nodes"])
    prepare_multi_gpu_env(arguments)
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", 0)
    assert (arguments.rdzv_endpoint, arguments.rdzv_backend) == ("10.0.0.1:29500", "c10d")

    for name, value in prepare_multi_gpu_env(parsed(words["fsdp2"])).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert plugin.reshard_after_forward and not plugin.cpu_ram_efficient_loading


def test_zero_2(page, repository, monkeypatch):
    """As far as accelerate goes without DeepSpeed."""
    monkeypatch.chdir(repository)
    words = next(words for words in page if "scripts/launch/zero2.yaml" in words)
    arguments = parsed(words)
    arguments.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(arguments)
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 2 and "optimizer" not in plugin.deepspeed_config
    assert plugin.deepspeed_config["gradient_accumulation_steps"] == "auto"
    assert words[-2:] == ["--optimizer", "adamw"]  # the recipe's may be one that does not go with it


def test_the_slurm_script_asks_for_the_signal_that_hfseq_knows(launch):
    script = launch / "slurm.sh"
    options = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(options)["signal"] == "TERM@600" and "requeue" in dict(options)
    subprocess.run(["bash", "-n", str(script)], check=True)
