"""A user's server on llama.cpp's own server code, as xllamacpp has it; it publishes metrics with ``--metrics``."""

import argparse
import time

import xllamacpp

parser = argparse.ArgumentParser()
parser.add_argument("-m", "--model", required=True)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--metrics", action="store_true")
arguments = parser.parse_args()
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.port, parameters.hostnames = arguments.model, arguments.port, [arguments.host]
parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads, parameters.warmup = 512, 1, 1, False
parameters.endpoint_metrics = arguments.metrics
server = xllamacpp.Server(parameters)
while True:
    time.sleep(60)
