"""The models that come in: a run folder's, a Keras file's, a TFLite file's."""
