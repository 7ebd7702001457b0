"""A user's Ray Serve application: one deployment with two replicas."""

from ray import serve


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
class TinyChat:
    """Stands for a model: it computes, and answers."""

    async def __call__(self, request: object) -> str:
        return str(sum(number * number for number in range(300_000)))


app = TinyChat.bind()
