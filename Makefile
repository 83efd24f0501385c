# tinykdump: a table of contents. What each target does stands in the file it names.
PREFIX = /usr
PYTHON = .venv/bin/python
# Where the distribution's Python looks for packages.
SITE = $(PREFIX)/lib/python3/dist-packages

.PHONY: help deps demo check bench lint kernel kernel-check rpm install

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

deps: ## install what demo and check need
	@tools/deps

demo: deps ## a kernel panics in QEMU, its dump is saved and restored (KERNEL=stock: one without the series)
	@[ "$(KERNEL)" = stock ] || tools/deps kernel
	@KERNEL=$(KERNEL) $(PYTHON) -m tests.demo

check: deps ## every test but those of kernel-check
	@$(PYTHON) -m pytest --numprocesses=2 --dist=loadfile --ignore=tests/kernel/pstore --ignore=tests/kernel/service \
		--ignore=tests/kernel/package

bench: deps ## what is measured and not asserted
	@tools/deps kernel
	@$(PYTHON) -m tests.bench

lint: deps ## the tests that read the code only
	@$(PYTHON) -m pytest tests/test_lint.py

kernel: deps ## build the kernel with both series; prints its directory
	@tools/deps kernel
	@$(PYTHON) -m kernel build

kernel-check: deps ## each commit of the series: applies, checkpatch, builds; KUnit; boots
	@tools/deps kernel
	@$(PYTHON) -m kernel check
	@$(PYTHON) -m pytest tests/kernel

rpm: ## source and binary packages of what is committed, in build/rpm (KERNEL=1: kernel-tinykdump too)
	@tools/rpm $(if $(KERNEL),--kernel)

install: ## install into DESTDIR
	install -d $(DESTDIR)$(SITE)/tinykdump/image $(DESTDIR)/etc/default/tinykdump.d
	install -m 644 src/tinykdump/*.py $(DESTDIR)$(SITE)/tinykdump
	install -m 644 src/tinykdump/image/*.py $(DESTDIR)$(SITE)/tinykdump/image
	install -D -m 755 src/tinykdump.sh $(DESTDIR)$(PREFIX)/bin/tinykdump
	install -D -m 755 src/crash/init $(DESTDIR)$(PREFIX)/share/tinykdump/crash/init
	install -m 755 src/crash/check $(DESTDIR)$(PREFIX)/share/tinykdump/crash
	install -m 644 src/crash/lib.sh $(DESTDIR)$(PREFIX)/share/tinykdump/crash
	install -D -m 755 kernel-install.d/60-tinykdump.install \
		$(DESTDIR)$(PREFIX)/lib/kernel/install.d/60-tinykdump.install
	install -D -m 644 src/systemd/tinykdump.service \
		$(DESTDIR)$(PREFIX)/lib/systemd/system/tinykdump.service
	install -D -m 644 src/systemd/90-tinykdump.preset \
		$(DESTDIR)$(PREFIX)/lib/systemd/system-preset/90-tinykdump.preset
	install -D -m 644 src/default/tinykdump $(DESTDIR)/etc/default/tinykdump
	install -D -m 644 man/tinykdump.8 $(DESTDIR)$(PREFIX)/share/man/man8/tinykdump.8
	install -D -m 644 man/tinykdump.5 $(DESTDIR)$(PREFIX)/share/man/man5/tinykdump.5
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/licenses/tinykdump/LICENSE
