"""Configuration of Pervasive Attention (Elbayad, Besacier and Verbeek 2018): a 2-D network over source x target."""

# No `from __future__ import annotations` here: @strict checks types, and cannot read annotations that are strings.
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

FORMS = ("dense", "residual")
NORMS = ("layer", "batch")
AGGREGATIONS = ("max", "average", "attention", "gated_max")


@strict
class PervasiveConfig(PreTrainedConfig):
    """The paper's DenseNet by default, but for its normalisation. Dropout values are probabilities, and 0 is off.

    Args:
        vocab_size: rows of the source embedding, and of the target's where that is shared; then width of the logits.
        decoder_vocab_size: rows of a separate target embedding and width of the logits; None: vocab_size.
        embedding_size: width of the word vectors of each side; a cell of the grid begins with both.
        form: "dense", the paper's DenseNet, or "residual", after the authors' later code: residual blocks of a
            depthwise convolution and a feed-forward network, sinusoidal positions.
        num_hidden_layers: convolutions along the grid (the authors: 24 dense layers, 14 residual blocks).
        kernel_size: of the convolutions, odd: a cell sees that many source positions and the upper half of as many
            target positions, its own included (the authors: 3 or 5 in dense layers, 11 in residual blocks).
        growth_size: dense: channels that each layer adds.
        bottleneck_size: dense: channels that each convolution reads; None: four times growth_size.
        hidden_size: residual: channels; intermediate_size: channels inside its feed-forward networks.
        norm: "layer" normalises every cell on its own. "batch" is the published batch normalisation: in training the
            statistics are those of all cells, *future target words included*, and a row's loss depends on its
            batch-mates; in evaluation it is causal. Neither accumulation nor several processes keep it exact.
        aggregation: how a column of cells becomes one vector per target position: "max", "average" (the sum over the
            square root of the source's length, as in the paper), "attention" (a mean weighted by a score of each cell)
            or "gated_max" (the maximum of gated channels).
        share_encoder_decoder_embeddings: source and target have one vocabulary and one embedding.
        tie_word_embeddings: the output layer's matrix is the target embedding.
        embedding_dropout: on word vectors; hidden_dropout: on what each layer puts out; output_dropout: on what
            predicts.
        label_smoothing: in training, the share of each target spread evenly over the vocabulary.
        decoder_start_token_id: stands before every target.
    """

    model_type = "hfseq_pervasive"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 8192
    decoder_vocab_size: int | None = None
    embedding_size: int = 128
    form: str = "dense"
    num_hidden_layers: int = 24
    kernel_size: int = 3
    growth_size: int = 32
    bottleneck_size: int | None = None
    hidden_size: int = 256
    intermediate_size: int = 1024
    norm: str = "layer"
    aggregation: str = "max"
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    embedding_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    output_dropout: float | int = 0.0
    label_smoothing: float | int = 0.0
    use_cache: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1

    def __post_init__(self, **kwargs) -> None:
        if self.decoder_vocab_size is None:
            self.decoder_vocab_size = self.vocab_size
        if self.bottleneck_size is None:
            self.bottleneck_size = 4 * self.growth_size
        super().__post_init__(**kwargs)

    def validate_sizes(self) -> None:
        names = ("vocab_size", "decoder_vocab_size", "embedding_size", "num_hidden_layers", "kernel_size")
        for name in (*names, "growth_size", "bottleneck_size", "hidden_size", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size {self.kernel_size} must be odd: a cell is the middle of what it sees of the source."
            )
        if self.form == "residual" and self.hidden_size % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be even: half of the positions' channels are sines, half cosines."
            )

    def validate_choices(self) -> None:
        for name, known in (("form", FORMS), ("norm", NORMS), ("aggregation", AGGREGATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}.")
        if self.form == "residual" and self.norm == "batch":
            raise ValueError(
                "norm 'batch' belongs to the dense form: set form to 'dense', or norm to 'layer'."
            )

    def validate_vocabularies(self) -> None:
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise ValueError(
                f"decoder_vocab_size {self.decoder_vocab_size} differs from vocab_size {self.vocab_size}: set "
                "share_encoder_decoder_embeddings to false."
            )

    def validate_probabilities(self) -> None:
        for name in ("embedding_dropout", "hidden_dropout", "output_dropout", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}.")


__all__ = ["PervasiveConfig"]
