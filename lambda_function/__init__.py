"""The deployed unit: an AWS Lambda function that classifies pictures of clothing.

Imports nothing else of this repository, and never TensorFlow or Keras.
"""
