"""Clients of TF Serving's protocol by REST and gRPC; neither needs TensorFlow."""
