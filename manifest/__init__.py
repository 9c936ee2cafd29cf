"""Record, replay and compare PyTorch training runs, bit for bit.

::

    import manifest

    run = manifest.record(config={"lr": 0.1})
"""

from manifest.errors import ManifestError
from manifest.recording import Run, record
from manifest.restoring import RestoreReport
from manifest.rewinding import replay

__all__ = ["ManifestError", "RestoreReport", "Run", "record", "replay"]
__version__ = "0.1.0"
