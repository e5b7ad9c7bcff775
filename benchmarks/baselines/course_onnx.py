"""The course handler as its newer edition has it: the same code on onnxruntime."""

import onnxruntime as ort
from keras_image_helper import create_preprocessor

preprocessor = create_preprocessor("xception", target_size=(299, 299))

session = ort.InferenceSession("clothing-model.onnx", providers=["CPUExecutionProvider"])
input_name = session.get_inputs()[0].name
output_name = session.get_outputs()[0].name

classes = [
    "dress",
    "hat",
    "longsleeve",
    "outwear",
    "pants",
    "shirt",
    "shoes",
    "shorts",
    "skirt",
    "t-shirt",
]


def predict(url):
    """Fetch, preprocess and classify one image."""
    X = preprocessor.from_url(url)  # noqa: N806

    result = session.run([output_name], {input_name: X})

    float_predictions = result[0][0].tolist()
    return dict(zip(classes, float_predictions, strict=True))


def lambda_handler(event, context):  # noqa: ARG001
    """Answer ``{"url": ...}`` with a score for each class."""
    url = event["url"]
    return predict(url)
