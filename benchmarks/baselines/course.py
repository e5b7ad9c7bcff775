"""The well-known course handler, written by us from its description.

One file, everything at module level: the interpreter is loaded on import, the image is
fetched by keras-image-helper (``urlopen``), and the response is the dictionary of scores.
"""

import tflite_runtime.interpreter as tflite
from keras_image_helper import create_preprocessor

preprocessor = create_preprocessor("xception", target_size=(299, 299))

interpreter = tflite.Interpreter(model_path="clothing-model.tflite")
interpreter.allocate_tensors()

input_index = interpreter.get_input_details()[0]["index"]
output_index = interpreter.get_output_details()[0]["index"]

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

    interpreter.set_tensor(input_index, X)
    interpreter.invoke()
    preds = interpreter.get_tensor(output_index)

    float_predictions = preds[0].tolist()
    return dict(zip(classes, float_predictions, strict=True))


def lambda_handler(event, context):  # noqa: ARG001
    """Answer ``{"url": ...}`` with a score for each class."""
    url = event["url"]
    return predict(url)
