"""The routes against their own description: what they answer is what OpenAPI says, whatever is sent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]


def test_routes_do_what_their_description_says(server, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["--include-path-regex", "^/imos/v1", "--max-examples", "12", "--phases", "coverage,fuzzing"]
    # A description cannot say what bytes a label map consists of: sent at random, they are rightly refused.
    command += ["--exclude-checks", "positive_data_acceptance", "--generation-deterministic", "--no-color"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONWARNINGS": "ignore"}, capture_output=True, timeout=120
    )

    said = done.stdout.decode()
    assert done.returncode == 0, said[-4000:]
    assert "Tested: 18" in said
