"""A user's BentoML service."""

import bentoml


@bentoml.service(workers=2)
class Summarizer:
    """Stands for a model."""

    @bentoml.api
    def run(self, text: str) -> str:
        """Compute, and return what came."""
        return text[: sum(number % 2 for number in range(300_000))]
