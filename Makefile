# SPDX-License-Identifier: GPL-2.0-only
# make demo   the whole way on a lab host        make test   every check there is
# Each does its own set-up on a Debian 12 machine with git, Python 3.11 and root.

PYTHON ?= python3
# Time limits of guests, for a machine of two cores without KVM that others share.
export FSDEPLOY_TIME_FACTOR ?= 2
VENV := .venv
LINT_VENV := .venv-lint

# What the tool itself needs (the compiler and its friends, RPM, QEMU, the lab's image), then what only the tests do.
DEBIAN_PACKAGES := \
	bc binutils bison bzip2 ccache cpio createrepo-c debian-archive-keyring e2fsprogs fdisk flex gcc git gpg gpg-agent kmod \
	libc6-dev libelf-dev libssl-dev linux-source-6.1 make mmdebstrap openssh-client openssl patch perl procps \
	python3-venv qemu-system-x86 qemu-utils rpm rpm2cpio rsync xz-utils \
	musl-tools openssh-server shellcheck

.PHONY: help setup packages demo test lint clean

help:
	@echo 'make demo    build, roll out, verify, break and roll back on a lab host'
	@echo 'make test    linters, unit tests, kernels in guests, the lab'
	@echo 'make setup   only the set-up: leaves $(VENV)/bin/fsdeploy'

packages:
	@missing=; for package in $(DEBIAN_PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
			|| missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "Installing:$$missing"; \
		case "$$missing" in *openssh-server*) \
			echo 'No SSH server is started: systemctl unmask ssh.service for one'; \
			mkdir -p /etc/systemd/system; ln -s /dev/null /etc/systemd/system/ssh.service ;; \
		esac; \
		apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	fi

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip -q --disable-pip-version-check install -e '.[build,dev]'
	@touch $@

# ansible-lint wants a newer ansible-core than the one that manages CentOS 6 hosts.
$(LINT_VENV)/.ready: Makefile
	$(PYTHON) -m venv $(LINT_VENV)
	$(LINT_VENV)/bin/pip -q --disable-pip-version-check install 'ansible-lint>=24,<26'
	@touch $@

setup: packages
	@$(MAKE) --no-print-directory $(VENV)/.ready

demo: setup
	$(VENV)/bin/fsdeploy demo

lint: setup $(LINT_VENV)/.ready
	$(VENV)/bin/pytest tests/unit/test_lint.py

test: setup
	@$(MAKE) --no-print-directory $(LINT_VENV)/.ready
	$(VENV)/bin/pytest

clean:
	rm -rf $(VENV) $(LINT_VENV) dist
