"""TensorFlow itself inside the function, as AWS's SAM template for TensorFlow does it.

The template loads a Keras model on import and calls it on a Pillow image. It takes the image as
base64 in the body. Here the image comes from a URL, as for the other baselines.
"""

import io
from urllib.request import urlopen

import numpy as np
import tensorflow as tf
from PIL import Image

model = tf.keras.models.load_model("clothing-model.keras", compile=False)

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


def lambda_handler(event, context):  # noqa: ARG001
    """Answer ``{"url": ...}`` with a score for each class."""
    with urlopen(event["url"]) as response:
        image = Image.open(io.BytesIO(response.read())).convert("RGB").resize((299, 299))
    x = tf.keras.applications.xception.preprocess_input(np.array(image, dtype=np.float32))
    probabilities = model(x[np.newaxis])
    return dict(zip(classes, probabilities.numpy()[0].tolist(), strict=True))
