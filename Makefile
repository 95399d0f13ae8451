# Holdfast. `make help` lists what there is.
.POSIX:
.SUFFIXES:

GO = go
FUZZTIME = 10s

.PHONY: help build demo check test test-faults lint format bench fuzz faultlab clean

help:
	@echo "make build   bin/holdfast, one static binary"
	@echo "make demo    the main job on a real disk image, every command shown (no root, under two minutes)"
	@echo "make check   what your changes since main touch, the short way (two to three minutes)"
	@echo "make test    gofmt, vet, staticcheck, and all tests but those of test-faults (about thirteen minutes on two processors)"
	@echo "make test-faults  the tests that break disks, programs and servers (about seventeen minutes more)"
	@echo "make bench   against restic and borg on real disk images, and the network; writes docs/bench*.md (root, about 25 GiB of disk)"
	@echo "make fuzz    every fuzz target for FUZZTIME=$(FUZZTIME)"
	@echo "make faultlab  power cuts, torn writes, kills, I/O errors and rot by the thousand; writes docs/faultlab.md (root, an hour or two)"
	@echo "make clean   removes bin/"

build: .go
	@vcs=auto; git status >/dev/null 2>&1 || vcs=false; \
	set -x; CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$$vcs -o bin/holdfast ./cmd/holdfast && \
	$(GO) version -m bin/holdfast | grep -q CGO_ENABLED=0

demo: .go
	@sh tests/demo/demo.sh

check: .go format
	@sh tests/run.sh check

test: .go lint
	@sh tests/run.sh test

test-faults: .go
	@sh tests/run.sh faults

# Without the C library, which nothing here calls: so is the program, and all is
# compiled once for both.
lint: .go format
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) tool staticcheck ./...

format: .go
	@unformatted=$$(gofmt -l .) || exit 1; if [ -n "$$unformatted" ]; then \
		echo "gofmt would change:" >&2; echo "$$unformatted" >&2; exit 1; fi

bench: .go
	@sh tests/needs.sh --bench
	$(GO) run ./tests/bench
	$(GO) run ./tests/bench -server
	$(GO) run ./tests/bench -lists
	$(GO) run ./tests/bench -gc

fuzz: .go
	@sh tests/fuzz.sh $(FUZZTIME)

faultlab: .go
	@sh tests/needs.sh
	$(GO) run ./tests/faultlab/run

clean:
	rm -rf bin

.PHONY: .go
.go:
	@command -v $(GO) >/dev/null 2>&1 || { \
		echo "Holdfast is built with Go 1.26 or newer, and no 'go' command was found." >&2; \
		echo "Get it from https://go.dev/dl/ and put its bin folder on the PATH." >&2; exit 1; }
