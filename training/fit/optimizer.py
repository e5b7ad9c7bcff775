"""AdamW with a cosine schedule that falls with depth, and averaged weights that warm up."""

from __future__ import annotations

from typing import Any

import keras

from training.config import TrainConfig
from training.fit.backbone import LAST_BLOCK, block_of


class WarmAverageAdamW(keras.optimizers.AdamW):
    """AdamW whose average of the weights has a momentum that rises with the steps.

    After n steps the momentum is min(m, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage with ``num_updates``. With a constant momentum of 0.99, 79 % of the
    average would still be the first weights after 24 steps, and a run on few images is that short.
    """

    def __init__(self, *arguments: Any, factors: dict[str, float] | None = None, **options: Any):
        """Take AdamW's arguments, and a factor of the learning rate by path of the variable."""
        super().__init__(*arguments, **options)
        self._factors = factors or {}
        self._ordered_factors: list[float] = []

    def build(self, variables: list[Any]) -> None:
        """Create the state of the variables. Backends update them without their paths."""
        self._ordered_factors = [self._factors.get(v.path, 1.0) for v in variables]
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable, at its own learning rate."""
        factor = self._ordered_factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def _update_model_variables_moving_average(self, trainable_variables: list[Any]) -> None:
        step = keras.ops.cast(self.iterations, "float32")
        momentum = keras.ops.minimum(self.ema_momentum, (1 + step) / (10 + step))
        momentum = momentum * keras.ops.cast(step > 0, "float32")  # the first step fills it
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            share = keras.ops.cast(momentum, variable.dtype)
            average.assign(share * average + (1 - share) * variable)


def build_optimizer(
    config: TrainConfig, steps_per_epoch: int, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Return the optimizer of a run.

    Args:
        config: of the run.
        steps_per_epoch: batches in an epoch, for the schedule.
        model: that will be trained. Each of its blocks has its own learning rate.
    """
    steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    schedule: Any = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )
    optimizer = WarmAverageAdamW(
        schedule,
        weight_decay=config.weight_decay,
        global_clipnorm=1.0,
        use_ema=config.ema_momentum > 0,
        ema_momentum=config.ema_momentum or 0.99,
        factors=learning_rate_factors(model, config.layer_decay),
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def learning_rate_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """Return the factor of the learning rate of each variable, by its path. The head has 1.

    Layer-wise decay, as BEiT fine-tunes (Bao et al., ICLR 2022, arXiv:2106.08254), by block.

    Args:
        model: a network, or the trained part of one.
        decay: factor from each block to the one before it, above 0, 1 at most.
    """
    blocks = block_of([layer.name for layer in model.layers])
    return {
        variable.path: decay ** (LAST_BLOCK + 1 - block)
        for layer, block in zip(model.layers, blocks, strict=True)
        for variable in layer.trainable_variables
    }
