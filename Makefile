# make run    set up, carry the sample's painted slice through its volume, start the server
# make test   set up, run every check
#
# make run PACS=no                                      the samples as files, even where Orthanc can be had
# make run STUDIES=<folder or DICOMweb URL> PORT=8000   the same on your own images

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run sample serve orthanc test

PORT ?= 8000
# MONAI Label writes its state and the labels into the folder it serves: the samples are served from a copy.
SAMPLES := .run/studies
STUDIES ?= $(SAMPLES)
override STUDIES := $(patsubst %/,%,$(STUDIES))
# Orthanc holds the samples where it is there or can be installed; own studies stay where they are.
PACS ?= yes
WITH_PACS := $(if $(filter no,$(PACS)),,$(filter $(SAMPLES),$(STUDIES)))
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20
ORTHANC := /usr/share/orthanc/plugins/libOrthancDicomWeb.so
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

$(SAMPLES): $(wildcard samples/studies/*.nii.gz)
	@mkdir -p $@
	@cp samples/studies/*.nii.gz $@/
	@touch $@

serve: $(STAMP) $(filter $(SAMPLES),$(STUDIES)) $(if $(WITH_PACS),orthanc)
	@$(PYTHON) -c 'import socket; socket.create_server(("127.0.0.1", $(PORT))).close()' 2>/dev/null \
	  || { echo "Port $(PORT) is in use: make run PORT=8001" >&2; exit 1; }
	@echo
	@echo "Starting the server on http://127.0.0.1:$(PORT)/ with the images of $(STUDIES)"
	@echo "  in the browser   http://127.0.0.1:$(PORT)/ohif/"
	@echo "  what is there    http://127.0.0.1:$(PORT)/info/"
	@echo "  all requests     http://127.0.0.1:$(PORT)/"
	@echo "  3D Slicer        module MONAI Label, server http://127.0.0.1:$(PORT)/"
	@echo "Ctrl-C stops it. It says when it is ready."
	@start="$(PYTHON) -m monailabel.main start_server --app apps/imos --host 127.0.0.1 --port $(PORT) \
	    --verbose WARNING --log_level warning"; \
	if [ -n '$(WITH_PACS)' ] && [ -e $(ORTHANC) ]; then \
	  echo "The samples are kept in Orthanc, as DICOM (make run PACS=no: as files, without it)."; echo; \
	  exec $(PYTHON) -m imos.server.local_archive --or-files --viewer http://127.0.0.1:$(PORT) .run/archive '$(STUDIES)' $$start; \
	fi; \
	echo; exec $$start --studies '$(STUDIES)'

# A system package: installed where that needs no password, and done without where it cannot be had. Debian would start it
# as a service that other machines can reach; a policy-rc.d that says 101 keeps it from that.
POLICY := /usr/sbin/policy-rc.d
orthanc:
	@if [ ! -e $(ORTHANC) ] && [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Orthanc (make run PACS=no: without it)"; mkdir -p .run; \
	  if [ ! -e $(POLICY) ]; then trap 'rm -f $(POLICY)' EXIT; printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); fi; \
	  { $(APT) update && $(APT) install -y --no-install-recommends orthanc orthanc-dicomweb; } >.run/orthanc_install.log 2>&1 || true; \
	fi
	@test -e $(ORTHANC) || echo "Orthanc is not here (apt-get install orthanc orthanc-dicomweb): the samples are served as files"

test: $(STAMP)
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports --no-logo
	@$(PYTHON) -m pytest -n 2 --dist loadgroup -q -rs --durations 40 --durations-min 5
