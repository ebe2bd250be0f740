# Dunlin. `make run` builds it and starts a two-node cluster on this machine; `make stop` ends it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help run stop dist test

help:
	@echo 'make run    build, start two nodes on this machine, join them'
	@echo 'make stop   stop them'
	@echo 'make dist   build, and pack an archive under dist/'
	@echo 'make test   everything CI runs'

run:
	@scripts/run

stop:
	@scripts/stop

dist:
	@scripts/dist

test:
	@scripts/test
