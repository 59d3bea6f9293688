"""The embedded server: TF Serving's protocol, spoken where no `tensorflow_model_server` is."""
