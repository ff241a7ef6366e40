"""The `intertie` command."""

import os

# gRPC reads it once, when it is imported; its own words would stand between ours on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
