"""The same as a package: ``python -m pretraining``."""

import runpy

runpy.run_path("jax_train.py", run_name="__main__")
