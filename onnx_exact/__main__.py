"""`python -m onnx_exact`: hands over to the command."""

import sys

from onnx_exact.cli import main

sys.exit(main())
