"""From image bytes to an upright RGB image and the input tensor."""
