"""The recipes: what becomes of the float32 model. Each one's docstring says what it means.

All start from the same float32 flatbuffer and are applied by ai-edge-quantizer. TensorFlow's own
quantisation, tried beside it, agreed less with the float model (0.965 of 86 images against 0.988,
with 60 and 64 images to calibrate), needs a conversion of its own for every recipe, and writes
operator versions that tflite-runtime 2.14 refuses in dynamic-range files; all of these it loads,
and answers alike (tests/serving/test_runtimes.py).

Not offered: int16 activations. XNNPACK has no such convolutions, and the interpreter's own take
2.4 s of processor time for one image at 224 px, fifteen times as long as float32. Nor, after trying
both on the 341 validation images of release 1.0.0: `dynamic` with blocks 1 and 2 in float16 too (a
fifth more time; mean probability difference from float32 0.0016, as without), and weights clipped
by the quantiser's search for the least squared error (0.0097, and agreement 0.944).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from converter.calibration import Ranges, quiet
from converter.errors import ConverterError

Quantise = Callable[[bytes, Ranges], bytes]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named way from the float32 flatbuffer to the one that is served.

    Attributes:
        name: on the command line and in the artifact.
        apply: float32 flatbuffer and the ranges to ask for -> flatbuffer.
        is_calibrated: whether it looks at representative images.
    """

    name: str
    apply: Quantise
    is_calibrated: bool

    @property
    def meaning(self) -> str:
        """The docstring, for people."""
        return inspect.getdoc(self.apply) or ""


class UnknownRecipeError(ConverterError):
    """There is no recipe of this name."""


def float32(model: bytes, ranges: Ranges) -> bytes:  # noqa: ARG001 (one signature for all)
    """Weights and arithmetic in float32: the reference, and the largest."""
    return model


def float16(model: bytes, ranges: Ranges) -> bytes:  # noqa: ARG001
    """Weights in float16, turned to float32 when the model is loaded: half the file."""
    plan = _Plan()
    plan.keep_in_half("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return plan.apply(model)


def dynamic(model: bytes, ranges: Ranges) -> bytes:  # noqa: ARG001
    """Weights in int8 per channel, activations float32 between layers; no images needed.

    Convolutions quantise their input as they run, per image, and multiply integers. The rest, a
    hundredth of the arithmetic, computes in float32 from float16 weights: depthwise ones, which in
    int8 are no smaller (each channel's scale stands beside them), and the last dense layer's, which
    tflite-runtime 2.14 reads with one scale for all classes if they are int8 (a wrong label for 13
    of 17 images, and no error).
    """
    plan = _Plan()
    plan.manager.add_dynamic_config(".*", plan.operators["CONV_2D"], 8)
    plan.keep_in_half("DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return plan.apply(model)


def int8(model: bytes, ranges: Ranges) -> bytes:
    """Everything in integers inside, float32 at both ends: weights per channel, activations
    with the ranges seen on representative images. The softmax answers in steps of 1/256.
    """
    return _integer_plan().apply(model, ranges)


def int8_float_head(model: bytes, ranges: Ranges) -> bytes:
    """As int8, but pooling, the last dense layer and the softmax in float32.

    Costs 60 KB and no measurable time; probabilities are no longer multiples of 1/256, and the
    errors of the pooled features average out before they are read.
    """
    plan = _integer_plan()
    plan.leave_in_float("MEAN", "FULLY_CONNECTED", "SOFTMAX")
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
        UnknownRecipeError: there is none; the message lists those that there are.
    """
    if name not in RECIPES:
        raise UnknownRecipeError(f"recipe must be one of {', '.join(RECIPES)}. Received: {name!r}")
    return RECIPES[name]


class _Plan:
    """ai-edge-quantizer's recipe under construction; later entries win over earlier ones."""

    def __init__(self) -> None:
        from ai_edge_quantizer import qtyping, recipe_manager

        self.manager: Any = recipe_manager.RecipeManager()
        self.operators: Any = qtyping.TFLOperationName

    def keep_in_half(self, *operators: str) -> None:
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
                ".*", self.operators[operator], half, AlgorithmName.FLOAT_CASTING
            )

    def leave_in_float(self, *operators: str) -> None:
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        for operator in operators:
            self.manager.add_quantization_config(
                ".*", self.operators[operator], None, AlgorithmName.NO_QUANTIZE
            )

    def apply(self, model: bytes, ranges: Ranges | None = None) -> bytes:
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
