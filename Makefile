# What a person or a machine may want to do here. `make test` is the whole gate; .ci/run calls it and nothing else.

CARGO ?= cargo

.PHONY: help test fmt demo bench compare slow release
help:
	@echo "make test     everything that must hold before a change lands; ends with how many tests ran"
	@echo "make fmt      format the sources"
	@echo "make demo     the proxy, a catalog and sample instances in one process"
	@echo "make release  the program as it is released: optimised with a profile of real work (two builds)"
	@echo "make bench    the engine's own benchmarks (criterion)"
	@echo "make compare  pointsman beside nginx, HAProxy and Envoy; options in COMPARE=\"--rounds 3 --seconds 5 …\""
	@echo "make slow     5,000 slow clients of each kind, then fast ones, beside good ones (22 min); options in SLOW=\"--clients 200 --seconds 5 …\""

test:
	@scripts/test.sh

fmt:
	$(CARGO) fmt

demo:
	$(CARGO) run --locked --release -- demo

release:
	@scripts/release.sh

bench:
	$(CARGO) bench --locked --bench '*'

compare:
	$(CARGO) build --locked --release
	python3 benches/compare/compare.py $(COMPARE)

slow:
	$(CARGO) build --locked --release
	python3 benches/slow/slow.py target/release/pointsman $(SLOW)
	python3 benches/slow/greedy.py target/release/pointsman
