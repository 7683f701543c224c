"""A policy for other software: an MLflow model, ONNX, torch.export and TorchScript."""
