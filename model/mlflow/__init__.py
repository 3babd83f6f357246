"""Connect the model to MLflow: packaging, signature, and the pyfunc. Only this package of `model` imports mlflow."""
