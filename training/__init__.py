"""Fine-tune Keras Xception on a folder of class folders, and report honestly.

Keras 3 only: nothing here imports TensorFlow, so the TensorFlow, JAX and PyTorch backends
all work (``KERAS_BACKEND``). Images are decoded and scaled by ``lambda_function.images.decode``,
the very code that serves them.
"""
