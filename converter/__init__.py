"""Turn a trained Keras model into one self-describing TFLite file, and guard what is published.

Needs TensorFlow (``requirements/training.txt``); ``inspect`` and ``publish`` do not.
"""
