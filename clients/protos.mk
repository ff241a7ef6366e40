# What every client's Makefile needs to generate code: which protos, and where they are.
PROTOS := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))../protos)
# google/api and google/rpc: a checkout of googleapis, or, after `make setup`, what Python's package has.
GOOGLE_PROTOS ?= $(lastword $(wildcard $(PROTOS)/../.venv/lib/python3*/site-packages))
PROTOC := protoc -I$(PROTOS) -I$(GOOGLE_PROTOS)

# The API that users speak with all that its messages are made of, and the details that come with a
# refusal. Found, not listed: a proto that is added later is not forgotten here.
API_SOURCES := $(sort $(wildcard $(addprefix $(PROTOS)/intertie/api/,cluster/v1/*.proto types/v1/*.proto)))
API_PROTOS := $(API_SOURCES:$(PROTOS)/%=%)
ERROR_PROTOS := google/rpc/status.proto google/rpc/error_details.proto

# Everything that is built goes below it.
BUILD ?= $(abspath $(PROTOS)/../build/clients/$(notdir $(CURDIR)))

.DELETE_ON_ERROR:
