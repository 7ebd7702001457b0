"""A user's search for parameters with Dask: in processes of its own, or in the workers of a scheduler."""

import argparse

from dask.distributed import Client, LocalCluster


def work(number: int) -> int:
    """One evaluation."""
    return sum(value * value for value in range(2_000_000 + number))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name_or_path")
    parser.add_argument("--scheduler", default="")
    arguments = parser.parse_args()
    client = Client(
        arguments.scheduler or LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    )
    for start in range(0, 10_000_000, 20):
        client.gather(client.map(work, range(start, start + 20)))
        print("step", flush=True)
