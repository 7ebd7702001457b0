"""A user's training on JAX."""

import argparse

import jax
import jax.numpy as jnp

parser = argparse.ArgumentParser()
parser.add_argument("--model_name")
parser.add_argument("--epochs", type=int, default=1)
parser.parse_args()
gradient = jax.jit(jax.grad(lambda weights, batch: jnp.square(jnp.tanh(batch @ weights)).mean()))
weights = jnp.ones((256, 256))
while True:
    weights -= 0.01 * gradient(weights, jax.random.normal(jax.random.PRNGKey(0), (64, 256)))
    print("step", flush=True)
