"""The MLflow side: the logged model, its signature, and packaging. The only modules of `model` that import mlflow."""
