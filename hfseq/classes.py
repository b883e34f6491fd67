"""Every model and config class; importing this module registers them with transformers' Auto classes.

`import hfseq` does that, and a pipeline for the task "translation" with it. The heads of a family are listed once, in
the AUTO_CLASSES of its modeling file.
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
when_imported("transformers.pipelines", lambda: importlib.import_module(".pipelines", __package__))

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
