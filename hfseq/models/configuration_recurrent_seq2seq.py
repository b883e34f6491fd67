"""Configurations of the recurrent encoder-decoders: without attention (Sutskever et al. 2014), with attention after the
first layer (Wu et al. 2016) or after the last (Luong et al. 2015), and with the original recurrences by option."""

# No `from __future__ import annotations` here: @strict checks types, and cannot read annotations that are strings.
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

ATTENTIONS = ("multiplicative", "additive")
POSITIONS = ("first", "last")
BRIDGES = ("last", "mean")


@strict
class RecurrentSeq2SeqConfig(PreTrainedConfig):
    """What the RNN, GRU and LSTM encoder-decoders have in common. Dropout values are probabilities, and 0 is off.

    Args:
        vocab_size: rows of the source embedding, and of the target's where that is shared; then width of the logits.
        decoder_vocab_size: rows of a separate target embedding and width of the logits; None: vocab_size.
        embedding_size: width of the word vectors.
        hidden_size: width of the decoder's layers.
        encoder_hidden_size: width of the encoder's layers, in each direction; None: hidden_size.
        encoder_layers, decoder_layers: their numbers.
        bidirectional: the encoder also reads the source backwards.
        attention: "multiplicative" scores (Luong et al. 2015, their "general"), "additive" ones (Bahdanau et al. 2015),
            or None: all that the decoder knows of the source is its first state (Sutskever et al. 2014).
        attention_position: "last": the last layer's outputs attend, and tanh(W [output; context]) predicts (Luong et
            al. 2015); "first": the first layer's do, and output and context feed the second (Wu et al. 2016, GNMT,
            whose context feeds every upper layer, the third and so on too).
        input_feeding: the original recurrences. At "last" each prediction's vector is part of the next step's input
            (Luong et al. 2015, section 3.3); at "first" the *previous* state attends, and the context is part of the
            first layer's input (Bahdanau et al. 2015; what predicts there is a maxout layer of output, word and
            context, here tanh(W [output; context])). What is fed back is not dropped; fairseq and OpenNMT feed back
            the vector after output dropout. Steps wait for each other: training takes several times as long.
        attention_size: width inside additive scores; None: hidden_size.
        bridge: the decoder's first state: of the "last" states of the encoder, or of the "mean" of its outputs. "last"
            without attention takes all states of all layers as they are where numbers and widths allow it; otherwise
            there is a projection, with tanh for h. With attention an LSTM's c begins at zero (JoeyNMT: c = h).
        share_encoder_decoder_embeddings: source and target have one vocabulary and one embedding.
        tie_word_embeddings: the output layer's matrix is the target embedding.
        input_dropout: on word vectors; hidden_dropout: between layers; output_dropout: on what predicts.
        variational_dropout: one mask for all time steps of a row (Gal and Ghahramani 2016) in these three.
        weight_dropout: on the recurrent matrices (Merity et al. 2017).
        label_smoothing: in training, the share of each target spread evenly over the vocabulary.
        initializer_range: embeddings start uniform in +-initializer_range, all other matrices as torch's.
        decoder_start_token_id: stands before every target.
    """

    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"num_hidden_layers": "decoder_layers"}

    vocab_size: int = 8192
    decoder_vocab_size: int | None = None
    embedding_size: int = 256
    hidden_size: int = 512
    encoder_hidden_size: int | None = None
    encoder_layers: int = 2
    decoder_layers: int = 2
    bidirectional: bool = True
    attention: str | None = "multiplicative"
    attention_position: str = "last"
    input_feeding: bool = False
    attention_size: int | None = None
    bridge: str = "last"
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    input_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    output_dropout: float | int = 0.0
    variational_dropout: bool = False
    weight_dropout: float | int = 0.0
    label_smoothing: float | int = 0.0
    initializer_range: float | int = 0.1
    use_cache: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1

    def __post_init__(self, **kwargs: object) -> None:
        self.decoder_vocab_size = self.target_vocab_size
        super().__post_init__(**kwargs)

    @property
    def target_vocab_size(self) -> int:
        """Rows of the target's embedding and width of the logits."""
        return self.vocab_size if self.decoder_vocab_size is None else self.decoder_vocab_size

    @property
    def rnn_mode(self) -> str:
        """torch's name of the cell: LSTM, GRU, RNN_TANH or RNN_RELU."""
        raise NotImplementedError("Use RNNSeq2SeqConfig, GRUSeq2SeqConfig or LSTMSeq2SeqConfig.")

    @property
    def state_tensors(self) -> int:
        """Tensors of a layer's state: h, and an LSTM's c."""
        return 2 if self.rnn_mode == "LSTM" else 1

    @property
    def encoder_width(self) -> int:
        """Width of the encoder's layers in each direction."""
        return self.encoder_hidden_size or self.hidden_size

    @property
    def memory_size(self) -> int:
        """Width of the encoder's outputs, of both directions."""
        return self.encoder_width * (2 if self.bidirectional else 1)

    @property
    def hands_over(self) -> bool:
        """Whether the decoder begins with the encoder's states as they are."""
        return (
            self.attention is None
            and self.bridge == "last"
            and not self.bidirectional
            and self.encoder_layers == self.decoder_layers
            and self.encoder_width == self.hidden_size
        )

    def validate_sizes(self) -> None:
        names = ("vocab_size", "decoder_vocab_size", "embedding_size", "hidden_size", "encoder_layers")
        for name in (*names, "decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("encoder_hidden_size", "attention_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or None, not {value}.")

    def validate_vocabularies(self) -> None:
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise ValueError(
                f"decoder_vocab_size {self.decoder_vocab_size} differs from vocab_size {self.vocab_size}: set "
                "share_encoder_decoder_embeddings to false."
            )

    def validate_attention(self) -> None:
        if self.attention not in (*ATTENTIONS, None):
            raise ValueError(
                f"attention must be one of {', '.join(ATTENTIONS)} or None, not {self.attention!r}."
            )
        for name, known in (("attention_position", POSITIONS), ("bridge", BRIDGES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}.")
        if self.input_feeding and self.attention is None:
            raise ValueError(
                "input_feeding feeds what attention finds: with attention None there is nothing."
            )
        if self.input_feeding and (self.variational_dropout or self.weight_dropout):
            raise ValueError(
                "With input_feeding layers run one step at a time, and masks would differ between steps: set "
                "variational_dropout to false and weight_dropout to 0."
            )
        late = self.attention is not None and self.attention_position == "first" and not self.input_feeding
        if late and self.decoder_layers < 2:
            raise ValueError(
                f"With attention_position 'first' the context feeds the second layer: decoder_layers "
                f"{self.decoder_layers} must be at least 2, or attention_position 'last'."
            )

    def validate_probabilities(self) -> None:
        for name in (
            "input_dropout",
            "hidden_dropout",
            "output_dropout",
            "weight_dropout",
            "label_smoothing",
        ):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}.")


@strict
class RNNSeq2SeqConfig(RecurrentSeq2SeqConfig):
    """Plain recurrent layers (Elman 1990); see `RecurrentSeq2SeqConfig` for the fields.

    Args:
        nonlinearity: "tanh" or "relu".
    """

    model_type = "hfseq_rnn_seq2seq"
    nonlinearity: str = "tanh"

    @property
    def rnn_mode(self) -> str:
        return f"RNN_{self.nonlinearity.upper()}"

    def validate_nonlinearity(self) -> None:
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', not {self.nonlinearity!r}.")


@strict
class GRUSeq2SeqConfig(RecurrentSeq2SeqConfig):
    """Gated recurrent units (Cho et al. 2014, in cuDNN's form); see `RecurrentSeq2SeqConfig` for the fields."""

    model_type = "hfseq_gru_seq2seq"

    @property
    def rnn_mode(self) -> str:
        return "GRU"


@strict
class LSTMSeq2SeqConfig(RecurrentSeq2SeqConfig):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); see `RecurrentSeq2SeqConfig` for the fields."""

    model_type = "hfseq_lstm_seq2seq"

    @property
    def rnn_mode(self) -> str:
        return "LSTM"


__all__ = ["RecurrentSeq2SeqConfig", "RNNSeq2SeqConfig", "GRUSeq2SeqConfig", "LSTMSeq2SeqConfig"]
