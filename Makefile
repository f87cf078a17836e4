# make demo    try Merlon on a holed shop, nothing to install
# make test    everything that must hold before a change lands
# make bench   CPU time per request beside other gateways
# make timing  whether times tell who has an account; ten minutes
# make fuzz    every fuzz target, FUZZTIME each (default 1m)
# make lint    the checks of make test that run nothing
# make docs    the generated parts of the manual
# make image   the container image, with docker or podman

GO       ?= go
FUZZTIME ?= 1m
export CGO_ENABLED ?= 0

.PHONY: demo test bench timing fuzz lint docs build image

build:
	$(GO) build -trimpath -o bin/merlon ./cmd/merlon

demo:
	$(GO) run ./cmd/merlon demo

test:
	./test/run

bench:
	$(GO) run ./bench

timing:
	$(GO) run ./test/timing

fuzz:
	FUZZTIME=$(FUZZTIME) ./test/fuzz

lint:
	./test/lint

docs:
	$(GO) generate ./internal/config

image:
	docker build -f deploy/Dockerfile -t merlon .
