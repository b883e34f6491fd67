"""hfseq: the architectures of sequence learning as Hugging Face models.

`import hfseq` registers every model class with transformers' Auto classes, so that
`AutoModelForCausalLM.from_pretrained(directory)` finds them, and a pipeline for the task "translation".
It costs little beyond torch and transformers: `hfseq.data`, `hfseq.training`, `hfseq.metrics`, `hfseq.convert`
and `hfseq.hub` load when first used.
"""

from __future__ import annotations

import importlib

import transformers

from .models import (
    modeling_encoder,
    modeling_pervasive,
    modeling_recurrent,
    modeling_recurrent_seq2seq,
    modeling_transformer,
)
from .models.configuration_encoder import EncoderConfig
from .models.configuration_pervasive import PervasiveConfig
from .models.configuration_recurrent import GRUConfig, LSTMConfig, RNNConfig
from .models.configuration_recurrent_seq2seq import GRUSeq2SeqConfig, LSTMSeq2SeqConfig, RNNSeq2SeqConfig
from .models.configuration_transformer import TransformerConfig
from .models.modeling_encoder import (
    EncoderForMaskedLM,
    EncoderForMultipleChoice,
    EncoderForPreTraining,
    EncoderForQuestionAnswering,
    EncoderForSequenceClassification,
    EncoderForTokenClassification,
    EncoderModel,
)
from .models.modeling_pervasive import PervasiveForSeq2SeqLM, PervasiveModel
from .models.modeling_recurrent import (
    GRUForCausalLM,
    GRUForSequenceClassification,
    GRUForTokenClassification,
    GRUModel,
    LSTMForCausalLM,
    LSTMForSequenceClassification,
    LSTMForTokenClassification,
    LSTMModel,
    RNNForCausalLM,
    RNNForSequenceClassification,
    RNNForTokenClassification,
    RNNModel,
)
from .models.modeling_recurrent_seq2seq import (
    GRUForSeq2SeqLM,
    GRUSeq2SeqModel,
    LSTMForSeq2SeqLM,
    LSTMSeq2SeqModel,
    RNNForSeq2SeqLM,
    RNNSeq2SeqModel,
)
from .models.modeling_transformer import TransformerForSeq2SeqLM, TransformerModel
from .registration import when_imported

__version__ = "0.2.0"

_LAZY_MODULES = (
    "cards",
    "contracts",
    "convert",
    "data",
    "hub",
    "metrics",
    "pipelines",
    "plots",
    "recipe",
    "tasks",
    "training",
)

_AUTO_CLASSES = {
    **modeling_recurrent.AUTO_CLASSES,
    **modeling_recurrent_seq2seq.AUTO_CLASSES,
    **modeling_encoder.AUTO_CLASSES,
    **modeling_transformer.AUTO_CLASSES,
    **modeling_pervasive.AUTO_CLASSES,
}
for _config, _classes in _AUTO_CLASSES.items():
    transformers.AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _auto_name, _class in _classes.items():
        getattr(transformers, _auto_name).register(_config, _class, exist_ok=True)
when_imported("transformers.pipelines", lambda: importlib.import_module(".pipelines", __name__))


def __getattr__(name: str):
    if name in _LAZY_MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "EncoderConfig",
    "EncoderForMaskedLM",
    "EncoderForMultipleChoice",
    "EncoderForPreTraining",
    "EncoderForQuestionAnswering",
    "EncoderForSequenceClassification",
    "EncoderForTokenClassification",
    "EncoderModel",
    "GRUConfig",
    "GRUForCausalLM",
    "GRUForSeq2SeqLM",
    "GRUForSequenceClassification",
    "GRUForTokenClassification",
    "GRUModel",
    "GRUSeq2SeqConfig",
    "GRUSeq2SeqModel",
    "LSTMConfig",
    "LSTMForCausalLM",
    "LSTMForSeq2SeqLM",
    "LSTMForSequenceClassification",
    "LSTMForTokenClassification",
    "LSTMModel",
    "LSTMSeq2SeqConfig",
    "LSTMSeq2SeqModel",
    "PervasiveConfig",
    "PervasiveForSeq2SeqLM",
    "PervasiveModel",
    "RNNConfig",
    "RNNForCausalLM",
    "RNNForSeq2SeqLM",
    "RNNForSequenceClassification",
    "RNNForTokenClassification",
    "RNNModel",
    "RNNSeq2SeqConfig",
    "RNNSeq2SeqModel",
    "TransformerConfig",
    "TransformerForSeq2SeqLM",
    "TransformerModel",
]
