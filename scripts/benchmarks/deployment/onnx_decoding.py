"""Beam search over the ONNX form of a sequence-to-sequence model, in NumPy: what somebody without torch writes.

The search is that of transformers' `generate()`: scores are sums of log probabilities, divided by length ** penalty
when a row ends; a source is done when as many have ended as there are beams and no running one can beat the worst.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .forms import ends_of, onnx_session


class OnnxTranslator:
    """`encoder.onnx` and `decoder.onnx` of a directory, whatever the family.

    Args:
        directory: what `hfseq convert export onnx` wrote.
        start, end, pad: ids of the target side.
        never: ids that are never chosen.
        threads: of onnxruntime.
    """

    def __init__(
        self, directory: Path, start: int, end: int, pad: int, never: list[int] | None, threads: int
    ):
        self.encoder, self.decoder = (
            onnx_session(directory / f"{side}.onnx", threads) for side in ("encoder", "decoder")
        )
        self.start, self.end, self.pad, self.never = start, end, pad, list(never or ())
        self.wanted = {value.name for value in self.decoder.get_inputs()}
        # Which axis of a state is the batch's.
        self.axes = {
            value.name: list(value.shape).index("batch")
            for value in self.decoder.get_inputs()
            if value.name.startswith("state_")
        }

    def translate(
        self, rows: list[list[int]], beams: int, longest: int, penalty: float = 1.0
    ) -> list[list[int]]:
        """Token ids of each source, without start and end.

        Args:
            rows: source ids, one batch.
            beams: 1 is greedy.
            longest: tokens of a translation at most.
            penalty: the exponent of the length.
        """
        batch, width = len(rows), max(map(len, rows))
        ids = np.full((batch, width), self.pad, np.int64)
        mask = np.zeros((batch, width), np.int64)
        for row, source in enumerate(rows):
            ids[row, : len(source)] = source
            mask[row, : len(source)] = 1
        names = [value.name for value in self.encoder.get_outputs()]
        outputs = dict(
            zip(names, self.encoder.run(None, {"input_ids": ids, "attention_mask": mask}), strict=True)
        )
        fixed = {"attention_mask": mask, **{k: v for k, v in outputs.items() if k.startswith("memory")}}
        fixed = {k: np.repeat(v, beams, axis=0) for k, v in fixed.items() if k in self.wanted}
        states = {name: np.repeat(outputs[name], beams, axis=axis) for name, axis in self.axes.items()}

        scores = np.full((batch, beams), -np.inf, np.float32)
        scores[:, 0] = 0.0
        tokens = np.full((batch * beams, 1), self.start, np.int64)
        written: list[list[list[int]]] = [[[] for _ in range(beams)] for _ in range(batch)]
        ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
        done = [False] * batch
        for step in range(1, longest + 1):
            logits, *new = self.decoder.run(None, {"decoder_input_ids": tokens, **fixed, **states})
            states = dict(zip(states, new, strict=True))
            chosen = self._best(logits[:, -1], scores, beams)  # (score, beam, token) for each source
            order = np.arange(batch * beams).reshape(batch, beams)
            tokens = np.full((batch, beams), self.pad, np.int64)
            for row in range(batch):
                if done[row]:
                    continue
                running: list[tuple[float, int, int]] = []
                for rank, (score, beam, token) in enumerate(chosen[row]):
                    if token == self.end or step == longest:
                        if rank < beams:
                            text = written[row][beam] + ([] if token == self.end else [token])
                            ended[row].append((score / step**penalty, text))
                    elif len(running) < beams:
                        running.append((score, beam, token))
                ended[row] = sorted(ended[row], key=lambda pair: -pair[0])[:beams]
                if not running:
                    done[row] = True
                    continue
                best = running[0][0] / step**penalty
                if len(ended[row]) == beams and ended[row][-1][0] >= best:
                    done[row] = True
                    continue
                written[row] = [[*written[row][beam], token] for _, beam, token in running]
                for place, (score, beam, token) in enumerate(running):
                    scores[row, place], tokens[row, place] = score, token
                    order[row, place] = row * beams + beam
            if all(done):
                break
            tokens = tokens.reshape(-1, 1)
            flat = order.reshape(-1)
            states = {name: np.take(value, flat, axis=self.axes[name]) for name, value in states.items()}
        return [pairs[0][1] if pairs else [] for pairs in ended]

    def logits(self, ids: np.ndarray, mask: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """[batch, time, vocabulary] after each of the targets, which begin with the start: all in one step.

        Args:
            ids, mask: the sources [batch, source time], 0 in the mask at padding.
            targets: [batch, time].
        """
        names = [value.name for value in self.encoder.get_outputs()]
        found = self.encoder.run(None, {"input_ids": ids, "attention_mask": mask})
        given = {"decoder_input_ids": targets, "attention_mask": mask, **dict(zip(names, found, strict=True))}
        return self.decoder.run(["logits"], {k: v for k, v in given.items() if k in self.wanted})[0]

    def _best(self, logits: np.ndarray, scores: np.ndarray, beams: int) -> list[list[tuple[float, int, int]]]:
        """logits [batch * beams, vocabulary] -> the best 2 * beams continuations of each source."""
        top = logits.max(axis=1, keepdims=True)
        chances = logits - (top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))
        chances[:, self.never] = -np.inf
        batch, size = len(scores), logits.shape[1]
        total = (chances.reshape(batch, beams, size) + scores[:, :, None]).reshape(batch, -1)
        count = min(2 * beams, total.shape[1])
        places = np.argpartition(-total, count - 1, axis=1)[:, :count]
        found: list[list[tuple[float, int, int]]] = []
        for row, candidates in enumerate(places):
            ranked = candidates[np.argsort(-total[row, candidates], kind="stable")]
            found.append([(float(total[row, i]), int(i // size), int(i % size)) for i in ranked])
        return found


def facts_of(model: Any) -> dict[str, Any]:
    """Of a model of hfseq's, what `OnnxTranslator` asks for."""
    config, generation = model.config, model.generation_config
    return {
        "start": config.decoder_start_token_id,
        "end": ends_of(config)[0],
        "pad": config.pad_token_id,
        "never": generation.suppress_tokens,
    }
