# Targets are thin: what they do lies in the builder and in ci/, and CI runs the same ones.

# One set of flags for everything that is compiled here, so that checks, tests and images share the build cache.
export GOFLAGS := $(shell cat builder/artifact/goflags)
export CGO_ENABLED := 0
# Debian's tools for file systems are not on the PATH of ordinary users.
export PATH := $(PATH):/usr/sbin:/sbin

skerry := go run ./builder/cmd/skerry

.DEFAULT_GOAL := help
.PHONY: help image run test unit e2e bench check fmt clean lock setup

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

image: ## build the disk image: out/skerry-x86-64.img
	$(skerry) build

run: ## boot the image in a virtual machine (see: skerry run --help)
	$(skerry) run $(ARGS)

test: ## run everything that CI runs: setup, check, unit tests, image, end-to-end tests
	ci/test

unit: ## run the unit tests
	ci/unit

e2e: ## boot the image in QEMU and try all that a user does; takes more than an hour without KVM
	ci/e2e/run $(ARGS)

bench: ## measure, and write docs/benchmarks.md
	ci/bench/run $(ARGS)

check: ## format check, lint, rules, and compilation for every architecture
	ci/check

fmt: ## format all Go files
	gofmt -w builder ci initd

lock: ## resolve the packages anew and write skerry.lock
	$(skerry) lock --update

setup: ## install the Debian packages that tests need
	ci/setup

clean: ## remove out/ (downloaded packages stay in the user's cache)
	rm -rf out
