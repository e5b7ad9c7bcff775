"""Exactly what is deployed: the Lambda handler, and the image code that training shares."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent  # of the deployed files, the model among them
REPOSITORY = PACKAGE.parent  # the checkout. In the function, Lambda's task root
SHIPPED_MODEL = PACKAGE / "model.tflite"  # the only place that names the file
