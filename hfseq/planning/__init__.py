"""What a run will cost before it costs anything: memory, arithmetic, time.

    simulation    one update on tensors without content: what it allocates, multiplies, moves
    devices       what the devices can do
    prediction    the two together: memory per device, seconds per update, and what limits them

The command is `hfseq plan`.
"""

from __future__ import annotations

from .devices import DEVICES, Device, find_device
from .prediction import Prediction, predict
from .simulation import Work, simulate

__all__ = ["DEVICES", "Device", "Prediction", "Work", "find_device", "predict", "simulate"]
