"""RecurrentCache and CarriedStates by themselves."""

import pytest
import torch

from hfseq.models.caches import CarriedStates, RecurrentCache


def state(batch=3, value=0.0):
    base = torch.arange(batch, dtype=torch.float).view(1, batch, 1).expand(2, batch, 4)
    return (base + value, base - value)


class TestRecurrentCache:
    def make(self):
        cache = RecurrentCache(2)
        for layer in cache.layers:
            layer.update(state())
        cache.seen_tokens = 5
        return cache

    def test_length_is_the_tokens_seen(self):
        cache = self.make()
        assert cache.get_seq_length() == 5
        assert cache.get_mask_sizes(3, 0) == (8, 0)
        assert not cache.is_compileable

    def test_rows_reordered_repeated_selected(self):
        cache = self.make()
        cache.reorder_cache(torch.tensor([2, 0, 0]))
        assert cache.layers[1].states[0][0, :, 0].tolist() == [2, 0, 0]
        cache.batch_repeat_interleave(2)
        assert cache.layers[0].states[1][1, :, 3].tolist() == [2, 2, 0, 0, 0, 0]
        cache.batch_select_indices(torch.tensor([1, 5]))
        assert cache.layers[0].states[0][0, :, 0].tolist() == [2, 0]
        assert cache.batch_size == 2

    def test_updates_are_out_of_place(self):
        """Beam search and assisted decoding keep references to earlier states."""
        cache = self.make()
        before = cache.layers[0].states
        kept = [t.clone() for t in before]
        cache.layers[0].update(state(value=9.0))
        cache.reorder_cache(torch.tensor([1, 1, 1]))
        assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))

    def test_crop_goes_back(self):
        cache = self.make()
        cache.activate_past_recording()
        steps = [state(value=float(v)) for v in (1, 2, 3)]
        for layer in cache.layers:
            layer.update(steps[-1], steps)
        cache.seen_tokens += 3
        cache.crop(-2)
        assert cache.get_seq_length() == 6
        assert torch.equal(cache.layers[0].states[0], steps[0][0])
        with pytest.raises(RuntimeError, match="Cannot remove 1 tokens"):
            cache.crop(-1)  # cropping forgets the recorded past

    def test_crop_to_before_the_first_token(self):
        cache = RecurrentCache(1)
        cache.activate_past_recording()
        cache.layers[0].update(state(), [state(value=1.0), state()])
        cache.seen_tokens = 2
        cache.crop(-2)
        assert cache.layers[0].states is None
        assert cache.get_seq_length() == 0

    def test_positive_crop_is_a_length_to_keep(self):
        cache = self.make()
        cache.activate_past_recording()
        steps = [state(value=float(v)) for v in (1, 2, 3)]
        for layer in cache.layers:
            layer.update(steps[-1], steps)
        cache.seen_tokens += 3
        cache.crop(6)
        assert cache.get_seq_length() == 6
        assert torch.equal(cache.layers[1].states[1], steps[0][1])

    def test_recording_needs_every_step(self):
        cache = self.make()
        cache.activate_past_recording()
        with pytest.raises(ValueError, match="after every token"):
            cache.layers[0].update(state())

    def test_reset(self):
        cache = self.make()
        cache.reset()
        assert cache.get_seq_length() == 0
        assert not cache.has_previous_state()


class TestCarriedStates:
    SHAPES = [[(2, 4), (2, 4)], [(1, 3), (1, 3)]]
    LIKE = torch.zeros(1)

    def read(self, carried, ids, anew=None, training=True):
        ids = torch.tensor(ids)
        anew = None if anew is None else torch.tensor(anew)
        return carried.read(ids, anew, self.SHAPES, self.LIKE, training)

    def write(self, carried, ids, value, training=True):
        blocks = [
            tuple(torch.full((layers, len(ids), hidden), value) for layers, hidden in tensors)
            for tensors in self.SHAPES
        ]
        carried.write(torch.tensor(ids), blocks, training)

    @pytest.mark.parametrize("reserved", [True, False])
    def test_each_stream_gets_its_own_back(self, reserved):
        carried = CarriedStates()
        if reserved:
            carried.reserve(6)
        for ids, value in (([4, 1], 1.0), ([0, 5], 2.0)):
            assert all((t == 0).all() for block in self.read(carried, ids) for t in block)
            self.write(carried, ids, value)
        first = self.read(carried, [5, 4, 3])[0][0]
        assert first[0, :, 0].tolist() == [2, 1, 0]

    def test_starting_anew_forgets_only_those_rows(self):
        carried = CarriedStates()
        self.read(carried, [0, 1])
        self.write(carried, [0, 1], 3.0)
        cell = self.read(carried, [0, 1], [False, True])[1][1]
        assert cell[0, :, 0].tolist() == [3, 0]

    def test_evaluation_is_apart(self):
        carried = CarriedStates()
        self.read(carried, [0])
        self.write(carried, [0], 1.0)
        assert self.read(carried, [0], training=False)[0][0].eq(0).all()
        self.write(carried, [0], 7.0, training=False)
        carried.clear(training=False)
        assert self.read(carried, [0])[0][0].eq(1).all()

    def test_saved_by_the_process_that_wrote_them_and_merged_by_all(self):
        parts = []
        for ids, value in (([0, 2], 1.0), ([3, 1], 2.0)):
            carried = CarriedStates()
            carried.reserve(4)
            self.read(carried, ids)
            self.write(carried, ids, value)
            parts.append(carried.state_dict())
            assert parts[-1]["stream_id"].tolist() == sorted(ids)
        merged = CarriedStates()
        for part in parts:
            merged.load_state_dict(part)
        assert merged.state_dict() == {}  # loaded, not written
        assert self.read(merged, [0, 1, 2, 3])[0][0][0, :, 0].tolist() == [1, 2, 1, 2]
        self.write(merged, [1], 5.0)
        assert merged.state_dict()["stream_id"].tolist() == [1]

    def test_a_table_begun_in_inference_mode_goes_on_outside(self):
        carried = CarriedStates()
        with torch.inference_mode():
            self.read(carried, [0])
            self.write(carried, [0], 1.0)
        self.read(carried, [0])
        self.write(carried, [0], 2.0)
        assert self.read(carried, [0])[0][0].eq(2).all()

    def test_bad_input(self):
        with pytest.raises(ValueError, match="at least 1, not 0"):
            CarriedStates().reserve(0)
        with pytest.raises(ValueError, match="lack 'stream_id'"):
            CarriedStates().load_state_dict({"block0.state0": torch.zeros(1, 1, 1)})
        CarriedStates().load_state_dict({})
        assert CarriedStates().state_dict() == {}
