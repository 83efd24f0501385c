# SPDX-License-Identifier: GPL-2.0-or-later
# A table of contents: each target only calls the program that does the work.
PREFIX = /usr
PYTHON = .venv/bin/python
# The directory where the distribution's Python finds packages.
SITE = $(PREFIX)/lib/python3/dist-packages
# Where zsh finds completions; on Debian it is $(PREFIX)/share/zsh/vendor-completions.
ZSH = $(PREFIX)/share/zsh/site-functions
BASH_COMPLETION = $(PREFIX)/share/bash-completion/completions
FISH = $(PREFIX)/share/fish/vendor_completions.d
# SERIES=6.12 names the kernel of demo, kernel, crash-kernel, kernel-check, bench and rpm, as in
# kernel/releases.toml.
ifdef SERIES
export TINYKDUMP_KERNEL_SERIES = $(SERIES)
endif
# Which lines of src no test of Python's own ran, to look at; there is no figure to reach.
COVERAGE = --cov --cov-report=term

.PHONY: help deps demo session check long-check quick faults endurance bench lint kernel crash-kernel kernel-check rpm deb \
	release install install-files install-crash-kernel

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

deps: ## install the packages that demo and check need
	@tools/deps

demo: deps ## crash Debian's kernel, then ours, in QEMU and restore the dumps (KERNEL=stock|patched|small: one of them)
	@KERNEL=$(KERNEL) $(PYTHON) -m tests.demo

session: deps ## record a session as the demo's first act shows it, for the README and the manual page
	@$(PYTHON) -m tests.session

check: deps ## run all tests except those of kernel-check and long-check
	@$(PYTHON) -m pytest --numprocesses=2 --dist=loadfile $(COVERAGE) -m "not kernel and not long"

quick: deps ## run the tests that boot nothing and are fast, in a minute
	@$(PYTHON) -m pytest --numprocesses=4 --dist=worksteal --quiet --hypothesis-profile=quick \
		-m "not vm and not kernel and not slow" \
		tests/test_lint.py tests/unit tests/crash tests/plugin tests/man tests/bench tests/vmtest tests/kernel

faults: deps ## run the fault matrix: what is done to a machine, and what the person gets (an hour or more)
	@$(PYTHON) -m tests.faults

endurance: deps ## crash one machine CYCLES times (100, which takes an hour), and look at what could grow
	@$(PYTHON) -m tests.faults endurance --kernel patched --cycles $(or $(CYCLES),100)

bench: deps ## measure CPU time, sizes and growth of the reservation, and write build/bench/report.html
	@tools/deps kernel
	@$(PYTHON) -m tests.bench

lint: deps ## run ruff, mypy and shellcheck
	@$(PYTHON) -m pytest tests/test_lint.py

crash-kernel: deps ## build the small crash kernel and print its directory
	@tools/deps kernel
	@$(PYTHON) -m kernel build --crash

kernel: deps ## build the kernel with the patch series and print its directory
	@tools/deps kernel
	@$(PYTHON) -m kernel build

kernel-check: deps ## test the kernel series: apply, checkpatch, build, KUnit, boot
	@tools/deps kernel
	@tools/deps arm64
	@$(PYTHON) -m pytest -m kernel tests/kernel/test_commits.py
	@$(PYTHON) -m pytest -m kernel --ignore=tests/kernel/test_commits.py tests/kernel

long-check: deps ## run the guests that take ten minutes each: under SELinux, set up by Ansible, and with arm64
	@tools/deps arm64
	@$(PYTHON) -m pytest -m long tests

rpm: ## build source and binary packages of the last commit in build/rpm (KERNEL=1: also kernels, KERNEL=small: one)
	@tools/rpm $(if $(KERNEL),$(if $(filter small,$(KERNEL)),--crash-kernel,--kernel))

deb: deps ## build Debian's source and binary packages of the last commit in build/deb
	@tools/deb

release: deps ## VERSION=x.y.z: commit, tag, tarball and packages, in build/release/VERSION; pushes nothing
	@$(PYTHON) -m tools.release $(VERSION)

install: install-files ## install into DESTDIR
	install -d $(DESTDIR)$(SITE)/tinykdump/image $(DESTDIR)$(SITE)/tinykdump/vmcore
	install -m 644 src/tinykdump/*.py $(DESTDIR)$(SITE)/tinykdump
	install -m 644 src/tinykdump/image/*.py $(DESTDIR)$(SITE)/tinykdump/image
	install -m 644 src/tinykdump/vmcore/*.py $(DESTDIR)$(SITE)/tinykdump/vmcore

install-crash-kernel: ## install the small crash kernel from CRASH_KERNEL, the directory that make crash-kernel prints
	install -d $(DESTDIR)$(PREFIX)/lib/tinykdump/kernel
	install -m 644 $(addprefix $(CRASH_KERNEL)/,vmlinuz config modules.builtin modules.builtin.modinfo) \
		$(DESTDIR)$(PREFIX)/lib/tinykdump/kernel

install-files: ## install all but the Python package, for those who install that as a wheel
	install -d $(DESTDIR)/etc/default/tinykdump.d
	install -D -m 755 src/tinykdump.sh $(DESTDIR)$(PREFIX)/bin/tinykdump
	install -D -m 755 src/crash/init $(DESTDIR)$(PREFIX)/share/tinykdump/crash/init
	install -m 755 src/crash/check src/crash/rehearse $(DESTDIR)$(PREFIX)/share/tinykdump/crash
	install -m 644 src/crash/*.sh $(DESTDIR)$(PREFIX)/share/tinykdump/crash
	install -D -m 755 kernel-install.d/60-tinykdump.install \
		$(DESTDIR)$(PREFIX)/lib/kernel/install.d/60-tinykdump.install
	install -D -m 644 src/systemd/tinykdump.service \
		$(DESTDIR)$(PREFIX)/lib/systemd/system/tinykdump.service
	install -m 644 src/systemd/tinykdump-harvest.service $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 src/systemd/tinykdump-notice.service $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 src/systemd/tinykdump-rehearse@.service $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -D -m 644 src/systemd/tinykdump.catalog \
		$(DESTDIR)$(PREFIX)/lib/systemd/catalog/tinykdump.catalog
	install -D -m 644 src/default/tinykdump $(DESTDIR)/etc/default/tinykdump
	install -D -m 644 man/tinykdump.8 $(DESTDIR)$(PREFIX)/share/man/man8/tinykdump.8
	install -D -m 644 man/tinykdump.5 $(DESTDIR)$(PREFIX)/share/man/man5/tinykdump.5
	install -d $(DESTDIR)$(BASH_COMPLETION) $(DESTDIR)$(ZSH) $(DESTDIR)$(FISH)
	python3 -B tools/completion.py $(DESTDIR)$(BASH_COMPLETION)/tinykdump $(DESTDIR)$(ZSH)/_tinykdump \
		$(DESTDIR)$(FISH)/tinykdump.fish
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/licenses/tinykdump/LICENSE
