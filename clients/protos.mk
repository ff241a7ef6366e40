# What every client's Makefile needs to generate code: which protos, and where they are.
PROTOS := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))../protos)
# google/api and google/rpc: a checkout of googleapis, or, after `make setup`, what Python's package has.
GOOGLE_PROTOS ?= $(lastword $(wildcard $(PROTOS)/../.venv/lib/python3*/site-packages))
PROTOC := protoc -I$(PROTOS) -I$(GOOGLE_PROTOS)

# The API that users speak, and the details that come with a refusal.
API_PROTOS := $(addprefix intertie/api/, \
  cluster/v1/clusters.proto cluster/v1/cluster.proto types/v1/attach.proto types/v1/resources.proto)
ERROR_PROTOS := google/rpc/status.proto google/rpc/error_details.proto
API_SOURCES := $(addprefix $(PROTOS)/,$(API_PROTOS))

# Everything that is built goes below it.
BUILD ?= $(abspath $(PROTOS)/../build/clients/$(notdir $(CURDIR)))

.DELETE_ON_ERROR:
