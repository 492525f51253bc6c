# make run    set up, carry the sample's painted slice through its volume, start the server
# make test   set up, run every check
#
# make pacs   the samples in an Orthanc archive on this machine, served from there
#
# make run STUDIES=<folder or DICOMweb URL> PORT=8000   the same on your own images

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run sample serve pacs test

PORT ?= 8000
# MONAI Label writes its state and the labels into the folder it serves: the samples are served from a copy.
STUDIES ?= .run/studies
PYTHON3 := $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))
PYTHON := .venv/bin/python
STAMP := .venv/installed
# The venv's tools (itkimage2segimage) are looked for on PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

setup: $(STAMP)

# --no-deps: requirements.txt is complete, and what MONAI Label names in addition is 1.6 GB that nothing here uses.
# The line after it is for torch alone: the build for NVIDIA GPUs needs its libraries, the CPU build nothing more.
$(STAMP): requirements.txt constraints.txt pyproject.toml
	@test -n "$(PYTHON3)" || { echo "Python 3.11 is needed: apt-get install python3.11 python3.11-venv" >&2; exit 1; }
	@"$(PYTHON3)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	  || { echo "$(PYTHON3) is $$("$(PYTHON3)" --version); Python 3.11 is needed." >&2; exit 1; }
	@echo "Setting up .venv (about two minutes the first time)"
	@test -x $(PYTHON) || "$(PYTHON3)" -m venv .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	@touch $@

run: sample serve

sample: $(STAMP)
	@mkdir -p .run
	@echo "The sample: six organs painted on one slice of a CT, carried through the volume"
	@$(PYTHON) main.py propagate samples/ct/image.nii.gz samples/ct/painted.nii.gz -o .run/sample_ct.nii.gz \
	  --report .run/sample_ct.json --sheet .run/sample_ct.png
	@$(PYTHON) -c 'import json; print("Propagation took", round(json.load(open(".run/sample_ct.json"))["seconds"], 1), "s")'
	@$(PYTHON) main.py dice .run/sample_ct.nii.gz samples/ct/label.nii.gz
	@echo "Contact sheet: $(CURDIR)/.run/sample_ct.png"

.run/studies: $(wildcard samples/studies/*.nii.gz)
	@mkdir -p $@
	@cp samples/studies/*.nii.gz $@/
	@touch $@

serve: $(STAMP) $(if $(filter .run/studies,$(STUDIES)),.run/studies)
	@$(PYTHON) -c 'import socket; socket.create_server(("127.0.0.1", $(PORT))).close()' 2>/dev/null \
	  || { echo "Port $(PORT) is in use: make run PORT=8001" >&2; exit 1; }
	@echo
	@echo "Starting the server on http://127.0.0.1:$(PORT)/ with the images of $(STUDIES)"
	@echo "  in the browser   http://127.0.0.1:$(PORT)/ohif/"
	@echo "  what is there    http://127.0.0.1:$(PORT)/info/"
	@echo "  all requests     http://127.0.0.1:$(PORT)/"
	@echo "  3D Slicer        module MONAI Label, server http://127.0.0.1:$(PORT)/"
	@echo "  from a terminal  curl -sf -F label=@samples/ct/painted.nii.gz \\"
	@echo "                     'http://127.0.0.1:$(PORT)/infer/imos?image=sample_ct&output=image' -o .run/volume.nii.gz"
	@test ! -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so \
	  || echo "  Orthanc is installed: make pacs serves the samples from an archive"
	@echo "Ctrl-C stops it. It says when it is ready."
	@echo
	@exec $(PYTHON) -m monailabel.main start_server --app apps/imos --studies '$(STUDIES)' \
	  --host 127.0.0.1 --port $(PORT) --verbose WARNING --log_level warning

# Orthanc is a system package: it is installed only by this target, and only where that needs no password.
pacs: $(STAMP) .run/studies
	@test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so || { test "$$(id -u)" -eq 0 && command -v apt-get >/dev/null \
	  && echo "Installing Orthanc" && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	  --no-install-recommends orthanc orthanc-dicomweb >/dev/null; } || true
	@exec $(PYTHON) main.py serve --studies .run/studies --orthanc .run/archive --port $(PORT)

test: $(STAMP)
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports --no-logo
	@$(PYTHON) -m pytest -n 2 --dist loadgroup -q --durations 40 --durations-min 5
