"""The files of the carried state, and the arguments that would break the streams."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainingArguments

from hfseq.training.carried_state import (
    check_stream_arguments,
    read_carried_state,
    write_carried_state,
)


def states(stream_ids: list[int]) -> dict[str, torch.Tensor]:
    """Layers 2, hidden 3; stream j's state is filled with j."""
    ids = torch.tensor(stream_ids)
    filled = ids.float().view(1, -1, 1).expand(2, -1, 3).contiguous()
    return {"stream_id": ids, "block0.state0": filled, "block0.state1": -filled}


class TestFiles:
    def test_all_processes_files_together_are_the_whole_state(self, tmp_path):
        write_carried_state(states([2, 0]), tmp_path, rank=0)
        write_carried_state(states([1, 3]), tmp_path, rank=1)
        merged = read_carried_state(tmp_path, 4)
        expected = states([0, 1, 2, 3])
        assert merged.keys() == expected.keys()
        assert all(torch.equal(merged[k], expected[k]) for k in merged)

    def test_none_saved(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{tmp_path} has no carried_state_.*start a new run"):
            read_carried_state(tmp_path, 4)

    def test_one_process_file_missing(self, tmp_path):
        write_carried_state(states([0, 2]), tmp_path, rank=0)
        with pytest.raises(ValueError, match=r"states of 2 streams \(1 files\), but this run has 4"):
            read_carried_state(tmp_path, 4)

    def test_a_stream_twice(self, tmp_path):
        write_carried_state(states([0, 1]), tmp_path, rank=0)
        write_carried_state(states([1, 2]), tmp_path, rank=1)
        with pytest.raises(ValueError, match="same number of streams"):
            read_carried_state(tmp_path, 4)

    def test_a_collator_without_stream_ids(self, tmp_path):
        with pytest.raises(ValueError, match="use StreamCollator"):
            write_carried_state({}, tmp_path, rank=0)

    def test_nothing_partial_under_the_final_name(self, tmp_path, monkeypatch):
        def killed(tensors, path):
            path.write_bytes(b"torso")
            raise KeyboardInterrupt

        monkeypatch.setattr("hfseq.training.carried_state.save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            write_carried_state(states([0]), tmp_path, rank=0)
        assert not list(tmp_path.glob("*.safetensors"))


class TestArguments:
    def arguments(self, tmp_path, **fields) -> TrainingArguments:
        return TrainingArguments(
            output_dir=tmp_path,
            use_cpu=True,
            **{
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 4,
                "train_sampling_strategy": "sequential",
                "per_device_eval_batch_size": 2,
                **fields,
            },
        )

    def test_right_ones_pass(self, tmp_path):
        check_stream_arguments(self.arguments(tmp_path), 8, evaluation_streams=4)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"per_device_train_batch_size": 4}, "8 streams, but an update takes 16 rows"),
            ({"train_sampling_strategy": "random"}, "set it to 'sequential'"),
            ({"accelerator_config": {"split_batches": True}}, "leave both off"),
            ({"accelerator_config": {"dispatch_batches": True}}, "leave both off"),
            ({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "persistent_workers=True"),
            ({"ignore_data_skip": True}, "ignore_data_skip=True"),
            ({"auto_find_batch_size": True}, "auto_find_batch_size=True"),
            ({"per_device_eval_batch_size": 8}, "evaluation plan has 4 streams, but 8 rows"),
        ],
    )
    def test_wrong_ones_are_named(self, tmp_path, fields, message):
        with pytest.raises(ValueError, match=message):
            check_stream_arguments(self.arguments(tmp_path, **fields), 8, evaluation_streams=4)
