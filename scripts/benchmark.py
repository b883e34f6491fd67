"""Measures hfseq against what a user has today. Every line of the table is one claim, with its goal.

    python scripts/benchmark.py lstm                     # training, memory, streams, decoding (minutes)
    python scripts/benchmark.py encoder                  # masked-LM training and its memory
    python scripts/benchmark.py transformer              # translation: training and generate()
    python scripts/benchmark.py seq2seq                  # LSTM encoder-decoder: training and decoding
    python scripts/benchmark.py pervasive                # Pervasive Attention: training, memory, decoding
    python scripts/benchmark.py seq2seq --only decoding  # one part of them
    python scripts/benchmark.py import                   # what `import hfseq` costs
    python scripts/benchmark.py data                     # tokenising and batching
    python scripts/benchmark.py arrays                   # token arrays of a large file: cores and memory
    python scripts/benchmark.py deployment --model outputs/transformer-multi30k-en-de   # ONNX, CTranslate2, int8
    python scripts/benchmark.py all --output scripts/benchmarks/cpu.json
    python scripts/benchmark.py gpu --device cuda --output scripts/benchmarks/gpu.json   # under ten minutes, no data

What is measured, against what, stands in scripts/benchmarks; how, in its measuring.py. Before anything is timed, both
sides must give the same losses, gradients, logits or ids: otherwise the line is void and the script fails. One thread
unless --threads says otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

import torch
from benchmarks import (
    arrays,
    deployment,
    encoder,
    gpu,
    pervasive,
    recurrent,
    recurrent_seq2seq,
    startup,
    text,
    transformer,
)
from benchmarks.measuring import Report, Settings

from hfseq.commands.console import path

BENCHMARKS: dict[str, Callable[[Report], None]] = {
    "lstm": recurrent.lstm,
    "seq2seq": recurrent_seq2seq.recurrent_seq2seq,
    "encoder": encoder.encoder,
    "transformer": transformer.transformer,
    "pervasive": pervasive.pervasive,
    "gpu": gpu.gpu,
    "deployment": deployment.deployment,
    "import": startup.import_cost,
    "data": text.data_lines,
    "arrays": arrays.arrays,
}
# Not in "all": the lines of a GPU are in those of the families too, and large files take long.
ALONE = ("gpu", "arrays")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    parser.add_argument("--only", default="", metavar="PART", help="e.g. training, memory, decoding")
    parser.add_argument(
        "--model", type=path, help="deployment: a trained checkpoint, whose quality is measured"
    )
    parser.add_argument(
        "--sentences", type=int, default=0, help="deployment: score the first N translations; default: all"
    )
    parser.add_argument("--output", type=path, help="also write everything to this JSON file")
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error(f"--threads must be at least 1, not {arguments.threads}")
    if arguments.sentences < 0:
        parser.error(f"--sentences must be 0 or more, not {arguments.sentences}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no GPU: leave the option out to measure on the CPU")
    if arguments.what == "gpu" and arguments.device != "cuda" and not arguments.quick:
        parser.error("gpu measures a GPU: add --device cuda, or --quick to see that it runs")
    if arguments.output and not arguments.output.parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no directory {arguments.output.parent}")

    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)  # read when `tokenizers` first uses its threads
    torch.set_num_threads(arguments.threads)
    settings = Settings(
        device=arguments.device,
        threads=arguments.threads,
        quick=arguments.quick,
        only=arguments.only,
        model=str(arguments.model or ""),
        sentences=arguments.sentences,
    )
    report = Report(settings, arguments.output)
    everything = [name for name in BENCHMARKS if name not in ALONE]
    for name in everything if arguments.what == "all" else [arguments.what]:
        print(f"{name} ...", flush=True)
        BENCHMARKS[name](report)
    report.show()
    if not (report.lines or report.failures):
        sys.exit(f"--only {arguments.only}: {arguments.what} has no such part that measures something.")
    if report.failures:
        sys.exit("\n".join(["", "FAILED:", *report.failures]))


if __name__ == "__main__":
    main()
