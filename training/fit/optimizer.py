"""AdamW with a cosine schedule, and a moving average of the weights that warms up."""

from __future__ import annotations

from typing import Any

import keras

from training.config import TrainConfig


class WarmAverageAdamW(keras.optimizers.AdamW):
    """AdamW whose average of the weights has a momentum that rises with the steps.

    After n steps the momentum is min(m, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage with ``num_updates``. With a constant momentum of 0.99, 79 % of the
    average would still be the first weights after 24 steps, and a run on few images is that short.
    """

    def _update_model_variables_moving_average(self, trainable_variables: list[Any]) -> None:
        step = keras.ops.cast(self.iterations, "float32")
        momentum = keras.ops.minimum(self.ema_momentum, (1 + step) / (10 + step))
        momentum = momentum * keras.ops.cast(step > 0, "float32")  # the first step fills it
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            share = keras.ops.cast(momentum, variable.dtype)
            average.assign(share * average + (1 - share) * variable)


def build_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a run.

    Args:
        config: of the run.
        steps_per_epoch: batches in an epoch, for the schedule.
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
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
