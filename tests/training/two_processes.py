"""What `torchrun` starts twice for the fixture of that name: the runs of `tiny_run.py`, the losses of
`test_label_weights.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import test_label_weights
    import tiny_run

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    tiny_run.two_processes(folder)
    test_label_weights.two_processes_write(folder / "losses.json")
    torch.distributed.destroy_process_group()
