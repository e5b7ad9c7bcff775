"""Turn a Keras or TFLite model into one self-describing TFLite file, and check it.

Converting and importing a Keras file need TensorFlow (``requirements/training.txt``). Importing a
TFLite file, ``adopt``, ``inspect`` and ``publish`` do not.
"""
