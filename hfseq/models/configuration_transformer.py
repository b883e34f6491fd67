"""Configuration of the encoder-decoder Transformer (Vaswani et al. 2017), with the options of later recipes."""

# No `from __future__ import annotations` here: @strict checks types, and cannot read annotations that are strings.
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

POSITION_TYPES = ("sinusoidal", "learned", "rotary")


@strict
class TransformerConfig(PreTrainedConfig):
    """The base model of "Attention Is All You Need" by default.

    Field names are those of `MarianConfig` where it has the field. Dropout values are probabilities, and 0 is off.

    Args:
        vocab_size: rows of the source embedding, and of the target's where that is shared; then width of the logits.
        decoder_vocab_size: rows of a separate target embedding and width of the logits; None: vocab_size.
        d_model: width of the layers; a multiple of both numbers of heads.
        encoder_layers, decoder_layers: their numbers.
        encoder_attention_heads, decoder_attention_heads: heads per layer.
        encoder_ffn_dim, decoder_ffn_dim: width inside the feed-forward networks (with gated_mlp: of each half).
        activation_function: an activation of transformers; with gated_mlp "gelu" gives GeGLU, "silu" SwiGLU.
        dropout: on embeddings and on the output of every sublayer; attention_dropout: on attention weights;
            activation_dropout: inside the feed-forward networks.
        max_position_embeddings: the longest source and target.
        scale_embedding: embeddings are multiplied by sqrt(d_model).
        share_encoder_decoder_embeddings: source and target have one vocabulary and one embedding.
        tie_word_embeddings: the output layer's matrix is the target embedding.
        position_embedding_type: "sinusoidal", "learned" (a vector per position, for each side) or "rotary" (Su et al.
            2021, in self-attention only).
        interleaved_positions: sines and cosines of sinusoidal positions alternate, as the paper writes them; else sines
            stand in the first half and cosines in the second, as Marian has them. The two differ by the order of
            columns alone. Frequency i of d / 2 is the paper's, 10000^(-2i / d); tensor2tensor and fairseq, with halves
            too, have 10000^(-i / (d / 2 - 1)): weights trained there see slightly other positions here.
        rope_theta: base of the rotary angles.
        pre_norm: normalise the input of each sublayer, and once more at the end of encoder and decoder, instead of the
            sum after it (Xiong et al. 2020).
        gated_mlp: act(gate(x)) * up(x) in place of act(up(x)) (Shazeer 2020).
        output_bias: a bias in the output layer (Marian's `final_logits_bias`).
        layer_norm_eps: of the layer norms.
        init_std: standard deviation of new matrices; None: Glorot and Bengio's (2010) uniform distribution for linear
            layers, and N(0, 1 / d_model) for scaled embeddings.
        label_smoothing: in training, the share of each target spread evenly over the vocabulary.
        r_drop: weight of R-Drop (Liang et al. 2021): in training each batch runs twice, and the divergence of the two
            predictions is added to the mean of their losses. 0 is off.
        decoder_start_token_id: stands before every target.
    """

    model_type = "hfseq_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    vocab_size: int = 37000
    decoder_vocab_size: int | None = None
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    max_position_embeddings: int = 512
    scale_embedding: bool = True
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    position_embedding_type: str = "sinusoidal"
    interleaved_positions: bool = False
    rope_theta: float | int = 10000.0
    pre_norm: bool = False
    gated_mlp: bool = False
    output_bias: bool = False
    layer_norm_eps: float | int = 1e-5
    init_std: float | int | None = None
    label_smoothing: float | int = 0.1
    r_drop: float | int = 0.0
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

    def validate_sizes(self) -> None:
        names = (
            "vocab_size",
            "decoder_vocab_size",
            "d_model",
            "encoder_layers",
            "decoder_layers",
            "encoder_ffn_dim",
        )
        for name in (*names, "decoder_ffn_dim", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            heads = getattr(self, name)
            if heads < 1 or self.d_model % heads:
                raise ValueError(f"d_model {self.d_model} is not a multiple of {name} {heads}.")
        if self.position_embedding_type != "learned" and self.d_model % 2:
            raise ValueError(
                f"{self.position_embedding_type} positions pair columns: d_model must be even, not {self.d_model}."
            )

    def validate_vocabularies(self) -> None:
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise ValueError(
                f"decoder_vocab_size {self.decoder_vocab_size} differs from vocab_size {self.vocab_size}: set "
                "share_encoder_decoder_embeddings to false."
            )

    def validate_probabilities(self) -> None:
        for name in ("dropout", "attention_dropout", "activation_dropout", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}.")
        if self.r_drop < 0:
            raise ValueError(f"r_drop must be at least 0, not {self.r_drop}.")

    def validate_positions(self) -> None:
        kind = self.position_embedding_type
        if kind not in POSITION_TYPES:
            raise ValueError(
                f"position_embedding_type must be one of {', '.join(POSITION_TYPES)}, not {kind!r}."
            )
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if kind == "rotary" and self.d_model // getattr(self, name) % 2:
                raise ValueError(
                    f"Rotary positions turn pairs of numbers: d_model / {name} must be even, not "
                    f"{self.d_model} / {getattr(self, name)}."
                )

    def validate_activation(self) -> None:
        from transformers.activations import ACT2FN

        if self.activation_function not in ACT2FN:
            raise ValueError(
                f"activation_function {self.activation_function!r} is no activation of transformers, such as 'relu'."
            )


__all__ = ["TransformerConfig"]
