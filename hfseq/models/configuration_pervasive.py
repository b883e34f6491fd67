"""Configuration of Pervasive Attention (Elbayad, Besacier and Verbeek 2018): a 2-D network over source x target."""

# No `from __future__ import annotations` here: @strict checks types, and cannot read annotations that are strings.
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

FORMS = ("dense", "residual", "densenet_2018", "resnet_2020")
PUBLISHED = ("densenet_2018", "resnet_2020")
NORMS = {  # of each form, the default first
    "dense": ("layer", "batch"),
    "residual": ("layer",),
    "densenet_2018": ("batch",),
    "resnet_2020": ("none",),
}
AGGREGATIONS = {
    "dense": ("max", "average", "attention", "gated_max"),
    "residual": ("max", "average", "attention", "gated_max"),
    "densenet_2018": ("max", "average"),
    "resnet_2020": ("gated_max", "max"),
}
PADDINGS = ("masked", "published")


@strict
class PervasiveConfig(PreTrainedConfig):
    """Our form of the paper's DenseNet by default, causal in training too. Dropouts are probabilities, and 0 is off.

    Args:
        vocab_size: rows of the source embedding, and of the target's where that is shared; then width of the logits.
        decoder_vocab_size: rows of a separate target embedding and width of the logits; None: vocab_size.
        embedding_size: width of the word vectors of each side; a cell of the grid begins with both.
        form: "dense", a DenseNet whose every layer reads both word vectors, as the paper draws it; or "residual", after
            the authors' later code: residual blocks of a depthwise convolution and a feed-forward network, with norms
            and sinusoidal positions. These two are ours. "densenet_2018" and "resnet_2020" are the networks that the
            authors released, see `pervasive_published.py`.
        num_hidden_layers: convolutions along the grid (the authors: 24 dense layers, 14 residual blocks).
        kernel_size: of the convolutions, odd: a cell sees that many source positions and the upper half of as many
            target positions, its own included (the authors: 3 or 5 in dense layers, 11 in residual blocks).
        growth_size: dense, densenet_2018: channels that each layer adds.
        bottleneck_size: dense, densenet_2018: channels that each convolution reads; None: four times growth_size.
        hidden_size: residual, resnet_2020: channels; intermediate_size: channels inside its feed-forward networks.
        norm: "layer" (by default in our forms) normalises every cell on its own. "batch" (dense; always in
            densenet_2018) is the published batch normalisation: in training the statistics are those of all cells,
            *future target words included*, and a row's loss depends on its batch-mates; in evaluation it is causal.
            Neither accumulation nor several processes keep it exact, and with checkpointing the running statistics see
            each batch twice. "none": always in resnet_2020.
        aggregation: how a column of cells becomes one vector per target position: "max", "average" (the sum over the
            square root of the source's length, as in the paper), "attention" (a mean weighted by a score of each cell)
            or "gated_max" (the maximum of gated channels; in resnet_2020 of a gated learned map of them).
        padding: "masked": padding of the source is zero wherever a convolution reads it, is not aggregated and does
            not count in statistics. "published", by default in densenet_2018 and resnet_2020, and for these only: as
            the authors have it, an output depends on its row's padding, and so on the longest source of its batch.
        share_encoder_decoder_embeddings: source and target have one vocabulary and one embedding.
        tie_word_embeddings: the output layer's matrix is the target embedding.
        embedding_dropout: on word vectors; hidden_dropout: on what each layer puts out; output_dropout: on what is
            aggregated, in the authors' networks on what the output layer reads.
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
    norm: str | None = None
    aggregation: str = "max"
    padding: str | None = None
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

    def __post_init__(self, **kwargs: object) -> None:
        self.decoder_vocab_size = self.target_vocab_size
        self.bottleneck_size = self.bottleneck_width
        if self.norm is None:
            self.norm = NORMS.get(self.form, ("layer",))[0]
        if self.padding is None:
            self.padding = "published" if self.is_published else "masked"
        super().__post_init__(**kwargs)

    @property
    def is_published(self) -> bool:
        """Whether the form is one of the networks that the authors released."""
        return self.form in PUBLISHED

    @property
    def target_vocab_size(self) -> int:
        """Rows of the target's embedding and width of the logits."""
        return self.vocab_size if self.decoder_vocab_size is None else self.decoder_vocab_size

    @property
    def bottleneck_width(self) -> int:
        """Channels that each convolution of a dense form reads."""
        return 4 * self.growth_size if self.bottleneck_size is None else self.bottleneck_size

    @property
    def first_position(self) -> int:
        """resnet_2020: the position of the first word. fairseq counts from the id of its padding, there 1, plus one."""
        return (self.pad_token_id or 0) + 1

    def validate_sizes(self) -> None:
        names = ("vocab_size", "decoder_vocab_size", "embedding_size", "num_hidden_layers", "kernel_size")
        for name in (*names, "growth_size", "bottleneck_size", "hidden_size", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size {self.kernel_size} must be odd: a cell is the middle of what it sees of the source."
            )
        for form, name in (("residual", "hidden_size"), ("resnet_2020", "embedding_size")):
            if self.form == form and getattr(self, name) % 2:
                raise ValueError(
                    f"{name} {getattr(self, name)} must be even: half of the channels of a position are sines, half "
                    "cosines."
                )

    def validate_choices(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, not {self.form!r}.")
        if self.padding not in PADDINGS or (self.padding == "published" and not self.is_published):
            raise ValueError(
                f"padding must be 'masked', or 'published' where form is one of {', '.join(PUBLISHED)}; not "
                f"{self.padding!r} with form {self.form!r}."
            )
        for name, choices in (("norm", NORMS), ("aggregation", AGGREGATIONS)):
            value, known = getattr(self, name), choices[self.form]
            if value in known:
                continue
            others = [form for form in FORMS if value in choices[form]]
            remedy = f" It belongs to form {' or '.join(map(repr, others))}." if others else ""
            raise ValueError(
                f"{name} must be one of {', '.join(known)} with form {self.form!r}, not {value!r}.{remedy}"
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
