"""What hosts have and workspaces take, on the wire."""

from intertie.api.broker.v1 import site_pb2
from intertie.common.quantities import Vector


def capacity_to_proto(vector: Vector) -> site_pb2.Capacity:
    return site_pb2.Capacity(**dict(vector.items()))
