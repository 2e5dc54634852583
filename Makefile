# The two commands: `make demo` shows a night, `make test` proves the product.

CARGO  ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test packages nextest

help:
	@echo "make demo   the whole night in half a minute, on a sample application"
	@echo "make test   install what the tests need (Debian, Ubuntu), then run all of them"

demo:
	$(CARGO) build --locked --profile demo
	$(TARGET)/demo/afterhours demo

# Documentation tests come first, so that the runner's summary is the last line.
# borg keeps caches and security notes per user; those of the tests are not the user's.
test: export BORG_BASE_DIR := $(abspath $(TARGET))/tmp/borg
test: packages nextest
	$(CARGO) test --locked --doc --quiet
	$(CARGO) nextest run --locked

packages:
	@.ci/packages
	@.ci/foreign $(abspath $(TARGET))/tmp/foreign

nextest:
	@command -v cargo-nextest >/dev/null || $(CARGO) install cargo-nextest --locked
