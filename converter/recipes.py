"""The recipes that turn the float32 model into the one that is served.

All start from the same float32 flatbuffer and are applied by ai-edge-quantizer. TensorFlow's own
quantisation agreed less with the float model: 0.965 of 86 images instead of 0.988. It converts
again for every recipe. tflite-runtime 2.14 refuses the operator versions of its dynamic-range
files. It loads all files of these recipes and predicts alike (tests/converter/test_runtimes.py).

Tried and left out:

- int16 activations. XNNPACK has no such convolutions. The interpreter's own take 2.4 s of
  processor time for one image at 224 px, fifteen times as long as float32.
- `dynamic` with blocks 1 and 2 in float16 too. It takes a fifth more time for the same mean
  probability difference of 0.0016 (341 validation images, release 1.0.0).
- Weights clipped by the quantiser's search for the least squared error. Agreement fell to 0.944
  on the same images.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from converter.calibration import CalibrationRanges, quiet
from converter.errors import ConversionError
from lambda_function.metadata import DISTANCE_OUTPUT

Quantise = Callable[[bytes, CalibrationRanges | None], bytes]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named way from the float32 flatbuffer to the one that is served.

    Attributes:
        name: on the command line and in the artifact.
        apply: float32 flatbuffer and ranges of activations -> flatbuffer.
        is_calibrated: whether it needs the ranges, and so calibration images.
    """

    name: str
    apply: Quantise
    is_calibrated: bool

    @property
    def meaning(self) -> str:
        """What the recipe does, for people: the docstring of ``apply``."""
        return inspect.getdoc(self.apply) or ""


def float32(model: bytes, ranges: CalibrationRanges | None) -> bytes:  # noqa: ARG001 (one signature for all)
    """Weights and arithmetic in float32. The reference, and the largest file."""
    return model


def float16(model: bytes, ranges: CalibrationRanges | None) -> bytes:  # noqa: ARG001
    """Weights in float16, turned to float32 when the model is loaded. Half the file."""
    plan = _Plan()
    plan.keep_in_half("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return plan.apply(model)


def dynamic(model: bytes, ranges: CalibrationRanges | None) -> bytes:  # noqa: ARG001
    """Weights in int8 per channel, activations in float32 between layers. Needs no images.

    Convolutions quantise their input for each image and multiply integers. The rest is a
    hundredth of the arithmetic and computes in float32 from float16 weights. Depthwise weights
    would be no smaller in int8, because each channel's scale stands beside them. tflite-runtime
    2.14 reads int8 weights of the last dense layer with one scale for all classes, which gave 13
    of 17 images a wrong label and no error.
    """
    plan = _Plan()
    plan.manager.add_dynamic_config(".*", plan.operators["CONV_2D"], 8)
    plan.keep_in_half("DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return plan.apply(model)


def int8(model: bytes, ranges: CalibrationRanges | None) -> bytes:
    """Integers inside, float32 at both ends.

    Weights are scaled per channel, activations by the ranges of the calibration images. The
    softmax gives steps of 1/256. The feature distance is computed in float32.
    """
    plan = _integer_plan()
    plan.keep_distance_in_float()
    return plan.apply(model, ranges)


def int8_float_head(model: bytes, ranges: CalibrationRanges | None) -> bytes:
    """As int8, with pooling, the last dense layer and the softmax in float32.

    It costs 60 KB and no measurable time. Probabilities are no multiples of 1/256, and the
    errors of the pooled features average out before the dense layer reads them.
    """
    plan = _integer_plan()
    plan.leave_in_float("MEAN", "FULLY_CONNECTED", "SOFTMAX")
    plan.keep_distance_in_float()
    return plan.apply(model, ranges)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("float32", float32, is_calibrated=False),
        Recipe("float16", float16, is_calibrated=False),
        Recipe("dynamic", dynamic, is_calibrated=False),
        Recipe("int8", int8, is_calibrated=True),
        Recipe("int8_float_head", int8_float_head, is_calibrated=True),
    )
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        ConversionError: there is none. The message lists the recipes.
    """
    if name not in RECIPES:
        raise ConversionError(f"recipe must be one of {', '.join(RECIPES)}. Received: {name!r}")
    return RECIPES[name]


class _Plan:
    """ai-edge-quantizer's recipe under construction. Later entries win over earlier ones."""

    def __init__(self) -> None:
        from ai_edge_quantizer import qtyping, recipe_manager

        self.manager: Any = recipe_manager.RecipeManager()
        self.operators: Any = qtyping.TFLOperationName

    def keep_in_half(self, *operators: str, scope: str = ".*") -> None:
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        half = qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        for operator in operators:
            self.manager.add_quantization_config(
                scope, self.operators[operator], half, AlgorithmName.FLOAT_CASTING
            )

    def leave_in_float(self, *operators: str, scope: str = ".*") -> None:
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        for operator in operators:
            self.manager.add_quantization_config(
                scope, self.operators[operator], None, AlgorithmName.NO_QUANTIZE
            )

    def keep_distance_in_float(self) -> None:
        """Compute the feature distance in float32, from constants in float16.

        A stranger's distance lies beyond those of the calibration images, where integers end.
        """
        scope = f".*{DISTANCE_OUTPUT}.*"
        self.leave_in_float("ALL_SUPPORTED", scope=scope)
        self.leave_in_float("REDUCE_MIN")  # the output itself, which has another name
        self.keep_in_half("FULLY_CONNECTED", scope=scope)

    def apply(self, model: bytes, ranges: CalibrationRanges | None = None) -> bytes:
        from ai_edge_quantizer import quantizer

        tensors = ranges.by_tensor if ranges else None
        with quiet():
            working = quantizer.Quantizer(model, self.manager.get_quantization_recipe())
            result = working.quantize(tensors)
        return bytes(result.quantized_model)


def _integer_plan() -> _Plan:
    plan = _Plan()
    plan.manager.add_static_config(
        regex=".*",
        operation_name=plan.operators.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    plan.leave_in_float("INPUT", "OUTPUT")  # float32 in and out, as every caller expects
    return plan
