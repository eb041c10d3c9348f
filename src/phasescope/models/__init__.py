"""Models that several experiments share."""

from phasescope.models.activations import (
    ACTIVATIONS,
    activation_function,
    gelu_fast,
    gelu_new,
    solu,
)
from phasescope.models.analytic import analytic_pair_transformer
from phasescope.models.attention_only import AttentionOnly
from phasescope.models.convnet import ConvNet
from phasescope.models.evaluation import evaluating
from phasescope.models.factorization import Factorization, initial_factors
from phasescope.models.feature_model import (
    FeatureLoss,
    feature_outputs,
    initial_feature_model,
    single_feature_activations,
)
from phasescope.models.feature_skips import skip_bias_phase
from phasescope.models.grokking_checkpoints import (
    load_grokking_checkpoint,
    pair_transformer_from_state,
    save_pair_transformer,
)
from phasescope.models.mlp import MLP, seeded
from phasescope.models.pair_ensemble import PairEnsemble
from phasescope.models.pair_transformer import PairActivations, PairTransformer
from phasescope.models.quadratic import QuadraticMLP, analytic_quadratic_mlp
from phasescope.models.resnet import ResNet
from phasescope.models.tied_autoencoder import TiedLoss, initial_tied_autoencoder, tied_outputs

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "AttentionOnly",
    "ConvNet",
    "Factorization",
    "FeatureLoss",
    "PairActivations",
    "PairEnsemble",
    "PairTransformer",
    "QuadraticMLP",
    "TiedLoss",
    "ResNet",
    "activation_function",
    "analytic_pair_transformer",
    "analytic_quadratic_mlp",
    "evaluating",
    "feature_outputs",
    "gelu_fast",
    "gelu_new",
    "initial_factors",
    "initial_feature_model",
    "initial_tied_autoencoder",
    "load_grokking_checkpoint",
    "pair_transformer_from_state",
    "save_pair_transformer",
    "seeded",
    "single_feature_activations",
    "skip_bias_phase",
    "solu",
    "tied_outputs",
]
