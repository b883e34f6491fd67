"""From what an update takes to seconds and bytes, on a device of round numbers."""

import dataclasses

import pytest

from hfseq.planning import DEVICES, Device, Work, find_device, predict
from hfseq.planning.devices import measure_here

DEVICE = Device(
    "round", memory=1000, flops=100.0, flops_16=200.0, bandwidth=50.0, link=10.0, launch=0.0, recurrent_step=0.0,
    context=0, matmul_share=0.5, traffic_share=0.5,
)  # fmt: skip
WORK = Work(
    parameter_bytes=100, gradient_bytes=100, optimizer_bytes=200, peak_bytes=700, flops=500, optimizer_flops=0,
    bytes_moved=250, operations=10, recurrent_steps=3, optimizer_bytes_moved=0, optimizer_operations=0, parameters=25,
    largest_module_bytes=40,
)  # fmt: skip


def of(device=DEVICE, work=WORK, **options):
    return predict([work], work, device, **{"tokens_per_update": 60, "updates": 7, **options})


def test_one_device():
    """500 operations at 50 a second, 250 bytes at 25."""
    made = of()
    assert made.seconds["matrix products"] == 10
    assert made.seconds["memory traffic"] == 10
    assert made.step_seconds == 20
    assert made.tokens_per_second == 3
    assert made.total_seconds == 140
    assert made.mfu == 500 / 20 / 100
    assert made.memory == {
        "weights": 100,
        "gradients": 100,
        "optimiser": 200,
        "activations": 300,
        "driver": 0,
    }
    assert made.fits


def test_bfloat16_and_accumulation():
    assert of(sixteen_bits=True).seconds["matrix products"] == 5
    assert of(accumulation=3).step_seconds == 60


def test_gradients_are_exchanged_behind_the_backward_pass():
    """2 x 100 bytes x 7 / 8 over links of 7 a second take 25 s, 13.3 s of them hidden."""
    made = of(devices=8)
    assert made.seconds["exchange"] == pytest.approx(25 - 20 * 2 / 3)
    assert made.memory["buckets"] == 100
    assert of(devices=2, device=dataclasses.replace(DEVICE, link=1000.0)).seconds["exchange"] == 0


def test_more_than_one_node_goes_by_the_network():
    slow = of(devices=16, network=1.0)
    assert slow.seconds["exchange"] == pytest.approx(200 * 15 / 16 / 0.7 - 20 * 2 / 3)
    assert slow.limit == "exchange"


def test_sharded_weights_are_divided_and_gathered():
    memory = of(devices=4, strategy="fsdp2").memory
    assert memory == {
        "weights": 25, "gradients": 25, "optimiser": 50, "activations": 300, "driver": 0, "gathered": 80
    }  # fmt: skip


def test_what_limits():
    assert of(device=dataclasses.replace(DEVICE, launch=100.0)).limit == "issuing operations"
    assert of(device=dataclasses.replace(DEVICE, recurrent_step=100.0)).limit == "recurrent steps"
    assert not of(device=dataclasses.replace(DEVICE, memory=710)).fits


@pytest.mark.parametrize(
    ("options", "message"),
    [({"devices": 0}, "at least 1, not 0"), ({"strategy": "zero9"}, "Unknown strategy 'zero9'")],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        of(**options)


def test_devices_by_name():
    assert find_device("h200") is DEVICES["h200"]
    with pytest.raises(ValueError, match="Unknown device 'h20O'.*'h200'"):
        find_device("h20O")
    for name, device in DEVICES.items():
        assert device.name == name
        assert device.flops_16 > device.flops > 1e12
        assert not device.measured


def test_the_device_that_is_here_is_measured():
    here = measure_here()
    assert here.measured
    assert 1e8 < here.flops < 1e16
    assert 1e8 < here.bandwidth < 1e14
    assert here.memory > 2**28
