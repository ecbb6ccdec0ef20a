# Every target is a thin alias: without make, run the line below it.
PYTHON ?= python3
MANAGE = $(PYTHON) manage.py

.PHONY: demo test check bench servers lock fmt clean

demo: ## everything, with two weeks of life, at http://127.0.0.1:8000
	$(MANAGE) demo

test: ## every check, then every test, browser tests included
	$(MANAGE) test

check: ## ruff, mypy, import contracts, migrations, deploy check
	$(MANAGE) check_all

bench: ## what we are fast at, beside a peer
	$(MANAGE) bench

servers: ## PostgreSQL and Redis alone
	$(MANAGE) servers

fmt:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lock: ## compile requirements/*.in for every platform; needs uv
	for name in base production local bench bench-djstripe bench-fraud models; do \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			requirements/$$name.in --output-file requirements/$$name.txt || exit 1; \
	done

clean: ## forget the environment and all local data
	rm -rf .venv .local .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles
