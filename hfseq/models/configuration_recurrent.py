"""Configurations of the recurrent language models: RNN (Elman 1990), GRU (Cho et al. 2014), LSTM
(Hochreiter and Schmidhuber 1997), with the regularisers of AWD-LSTM (Merity, Keskar and Socher 2017)."""

# No `from __future__ import annotations` here: @strict checks types, and cannot read annotations that are strings.
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

CLASSIFIER_POOLINGS = ("last", "mean", "max", "concat", "attention")


@strict
class RecurrentConfig(PreTrainedConfig):
    """What RNN, GRU and LSTM have in common. All dropout values are probabilities of dropping, and 0 is off.

    Args:
        vocab_size: rows of the embedding and width of the logits. Rounded up to a multiple of 64 where a config is
            made for a tokenizer; ids beyond the tokenizer's are never generated (`suppress_tokens`).
        embedding_size: width of the word vectors.
        hidden_size: width of the recurrent layers.
        num_hidden_layers: number of recurrent layers.
        last_hidden_size: width of the last layer where it differs (AWD-LSTM: the embedding size), else None.
        bidirectional: every layer also reads the text backwards (Schuster and Paliwal 1997), with the same width again:
            for classifiers and taggers, as a language model would see what it is to predict.
        feature_size: width of the vector that a text may begin with (`features`): every layer's first state is a
            projection of it, in place of zeros (after Vinyals et al. 2015). 0 for none.
        tie_word_embeddings: the output layer shares the embedding's matrix (Press and Wolf 2017). Where the last
            layer is not as wide as the embedding, a linear projection stands between the two.
        input_dropout: on the word vectors.
        hidden_dropout: between the recurrent layers.
        output_dropout: on the last layer's output.
        variational_dropout: one mask for all time steps of a row (Gal and Ghahramani 2016) in the three above.
        embedding_dropout: drops whole words, wherever they stand in the batch (Gal and Ghahramani 2016).
        weight_dropout: on the recurrent matrices, one mask per forward pass (DropConnect, Merity et al. 2017).
        activation_regularization: AWD-LSTM's alpha, weight of the mean squared (dropped) output.
        temporal_activation_regularization: AWD-LSTM's beta, weight of the mean squared change of the output.
        label_smoothing: in training, the share of each target spread evenly over the vocabulary (or the classes).
        classifier_pooling: how a text becomes one vector for `*ForSequenceClassification`. "last": the last layer at
            the last token, in two directions beside that of the backward direction at the first token; "mean"; "max";
            "concat": these three side by side (Howard and Ruder 2018); "attention": a mean with learned weights.
        classifier_layers: what both kinds of classifiers read: the "last" layer, or "all": the embedding and every
            layer side by side.
        classifier_hidden_size: width of a layer with ReLU before the output layer of a classifier; None for none.
        classifier_dropout: before each linear layer of a classifier; None takes output_dropout.
        initializer_range: embeddings start uniform in +-initializer_range; recurrent matrices in
            +-1/sqrt(hidden size).
    """

    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 8192
    embedding_size: int = 256
    hidden_size: int = 512
    num_hidden_layers: int = 2
    last_hidden_size: int | None = None
    bidirectional: bool = False
    feature_size: int = 0
    tie_word_embeddings: bool = True
    input_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    output_dropout: float | int = 0.0
    variational_dropout: bool = False
    embedding_dropout: float | int = 0.0
    weight_dropout: float | int = 0.0
    activation_regularization: float | int = 0.0
    temporal_activation_regularization: float | int = 0.0
    label_smoothing: float | int = 0.0
    classifier_pooling: str = "last"
    classifier_layers: str = "last"
    classifier_hidden_size: int | None = None
    classifier_dropout: float | int | None = None
    initializer_range: float | int = 0.1
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @property
    def rnn_mode(self) -> str:
        """torch's name of the cell: LSTM, GRU, RNN_TANH or RNN_RELU."""
        raise NotImplementedError("Use RNNConfig, GRUConfig or LSTMConfig.")

    @property
    def output_size(self) -> int:
        """Width of the last layer's output, of both directions."""
        return (self.last_hidden_size or self.hidden_size) * (2 if self.bidirectional else 1)

    @property
    def classifier_input_size(self) -> int:
        """Width of what a classifier reads at each token."""
        if self.classifier_layers == "last":
            return self.output_size
        below = (self.num_hidden_layers - 1) * self.hidden_size * (2 if self.bidirectional else 1)
        return self.embedding_size + below + self.output_size

    def validate_sizes(self) -> None:
        for name in ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.last_hidden_size is not None and self.last_hidden_size < 1:
            raise ValueError(f"last_hidden_size must be at least 1 or None, not {self.last_hidden_size}.")
        if self.feature_size < 0:
            raise ValueError(f"feature_size must be at least 0 (no features), not {self.feature_size}.")
        if self.classifier_hidden_size is not None and self.classifier_hidden_size < 1:
            raise ValueError(
                f"classifier_hidden_size must be at least 1 or None, not {self.classifier_hidden_size}."
            )

    def validate_classifier(self) -> None:
        for name, known in (("pooling", CLASSIFIER_POOLINGS), ("layers", ("last", "all"))):
            value = getattr(self, f"classifier_{name}")
            if value not in known:
                raise ValueError(f"classifier_{name} must be one of {', '.join(known)}, not {value!r}.")

    def validate_probabilities(self) -> None:
        for name in ("input", "hidden", "output", "embedding", "weight", "classifier"):
            value = getattr(self, f"{name}_dropout")
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name}_dropout must be at least 0 and below 1, not {value}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {self.label_smoothing}.")


@strict
class RNNConfig(RecurrentConfig):
    """A plain recurrent network, h' = f(W x + U h + b) (Elman 1990); see `RecurrentConfig` for the fields.

    Args:
        nonlinearity: f, "tanh" or "relu".
    """

    model_type = "hfseq_rnn"
    nonlinearity: str = "tanh"

    @property
    def rnn_mode(self) -> str:
        return f"RNN_{self.nonlinearity.upper()}"

    def validate_nonlinearity(self) -> None:
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', not {self.nonlinearity!r}.")


@strict
class GRUConfig(RecurrentConfig):
    """A gated recurrent unit (Cho et al. 2014, in cuDNN's form); see `RecurrentConfig` for the fields."""

    model_type = "hfseq_gru"

    @property
    def rnn_mode(self) -> str:
        return "GRU"


@strict
class LSTMConfig(RecurrentConfig):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000); see `RecurrentConfig`."""

    model_type = "hfseq_lstm"

    @property
    def rnn_mode(self) -> str:
        return "LSTM"


__all__ = ["RecurrentConfig", "RNNConfig", "GRUConfig", "LSTMConfig"]
