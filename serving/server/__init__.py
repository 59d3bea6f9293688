"""The embedded server: TF Serving's protocol without an installed `tensorflow_model_server`."""
