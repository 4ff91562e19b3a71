"""A gRPC server with the health service, from grpcio: what checks are tested against.

Prints its port, then takes lines `SERVICE STATUS` on standard input (SERVICE `-`: the server as a whole), sets that
status and prints `ok`. Ends with its standard input.
"""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

with_health = "--without-health" not in sys.argv
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
servicer = health.HealthServicer()
if with_health:
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)

for line in sys.stdin:
    service, status = line.split()
    servicer.set("" if service == "-" else service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    print("ok", flush=True)
server.stop(None)
