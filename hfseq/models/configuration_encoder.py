"""Configuration of the BERT-style encoder (Devlin et al. 2018), with the options of today's recipe."""

# No `from __future__ import annotations` here: @strict checks types, and cannot read annotations that are strings.
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

POSITION_TYPES = ("absolute", "rotary")
POOLINGS = ("cls", "mean")


@strict
class EncoderConfig(PreTrainedConfig):
    """BERT-base by default; every option off gives BERT's function exactly, so that its checkpoints load.

    Field names are those of `BertConfig` where it has the field. Dropout values are probabilities, and 0 is off.

    Args:
        vocab_size: rows of the embedding and width of the logits.
        hidden_size: width of the layers; a multiple of num_attention_heads.
        num_hidden_layers, num_attention_heads: of the encoder.
        intermediate_size: width inside the feed-forward network (with gated_mlp: of each of its two halves).
        hidden_act: an activation of transformers; with gated_mlp "gelu" gives GeGLU, "silu" SwiGLU (Shazeer 2020).
        hidden_dropout_prob: on the embeddings and on the output of every sublayer.
        attention_probs_dropout_prob: on the attention weights.
        classifier_dropout: before a classifier; None: hidden_dropout_prob.
        max_position_embeddings: the longest row; with rotary positions only the length that training means.
        type_vocab_size: number of segment types (sentence A, sentence B); 0 leaves the embedding out.
        initializer_range: standard deviation of new matrices.
        layer_norm_eps: of the layer norms.
        position_embedding_type: "absolute" (a learned vector per position) or "rotary" (Su et al. 2021).
        rope_theta: base of the rotary angles.
        pre_norm: normalise the input of each sublayer, and once more at the end (Xiong et al. 2020), instead of the
            sum after it.
        gated_mlp: act(gate(x)) * up(x) in place of act(up(x)).
        use_bias: biases in the linear layers and norms of encoder and masked-LM head (classifiers always have one).
        pooler: whether a bare `EncoderModel` has BERT's pooler; heads that use one bring it.
        classifier_pooling: what classifiers of whole texts read: "cls", BERT's pooler on the first position, or "mean",
            the mean over the text's positions, without a pooler. Masked-LM training alone never trains the first
            position to stand for the text: after it, the mean is the better start (Reimers and Gurevych 2019).
        tie_word_embeddings: the masked-LM output shares the embedding's matrix.
        label_smoothing: in training, the share of each target spread evenly over the vocabulary (masked-LM) or the
            classes (token and single-label sequence classification).
        mask_token_id: of the tokenizer, for whoever builds masked rows.
    """

    model_type = "hfseq_encoder"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    classifier_dropout: float | int | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-12
    position_embedding_type: str = "absolute"
    rope_theta: float | int = 10000.0
    pre_norm: bool = False
    gated_mlp: bool = False
    use_bias: bool = True
    pooler: bool = False
    classifier_pooling: str = "cls"
    tie_word_embeddings: bool = True
    label_smoothing: float | int = 0.0
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    mask_token_id: int | None = None

    def validate_sizes(self) -> None:
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*names, "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.type_vocab_size < 0:
            raise ValueError(f"type_vocab_size must be at least 0, not {self.type_vocab_size}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}."
            )

    def validate_probabilities(self) -> None:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {self.label_smoothing}.")

    def validate_positions(self) -> None:
        kind = self.position_embedding_type
        if kind not in POSITION_TYPES:
            raise ValueError(f"position_embedding_type must be 'absolute' or 'rotary', not {kind!r}.")
        if kind == "rotary" and self.hidden_size // self.num_attention_heads % 2:
            raise ValueError(
                "Rotary positions turn pairs of numbers: hidden_size / num_attention_heads must be even, not "
                f"{self.hidden_size} / {self.num_attention_heads}."
            )

    def validate_pooling(self) -> None:
        if self.classifier_pooling not in POOLINGS:
            raise ValueError(f"classifier_pooling must be 'cls' or 'mean', not {self.classifier_pooling!r}.")

    def validate_activation(self) -> None:
        from transformers.activations import ACT2FN

        if self.hidden_act not in ACT2FN:
            raise ValueError(
                f"hidden_act {self.hidden_act!r} is no activation of transformers, such as 'gelu'."
            )


__all__ = ["EncoderConfig"]
