"""Writes a model for MLflow."""

import mlflow.pyfunc


class Churn(mlflow.pyfunc.PythonModel):
    """Stands for a classifier."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Compute, and return what came."""
        sum(number * number for number in range(300_000))
        return model_input


mlflow.pyfunc.save_model("churn-classifier", python_model=Churn())
