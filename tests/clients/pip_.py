"""pip: a package from PyPI's index and its file host."""

import subprocess
import sys
import tempfile

import kb

PIP = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]

with kb.outcome("pip") as facts, tempfile.TemporaryDirectory() as work:
    command = [*PIP, "install", "--no-cache-dir", "--target", work, "kb-tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    kb.check((done.returncode, done.stderr), (0, ""), "pip")
    sys.path.insert(0, work)
    import kb_tiny

    kb.check(kb_tiny.MARK.strip(), "made by a registry of the tests", "the package")
