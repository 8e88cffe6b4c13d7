"""Serves bundles over the Open Inference Protocol: REST, gRPC, and one handler behind both."""
