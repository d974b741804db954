"""``python -m diagnostics``, and ``torchrun --nproc-per-node N -m diagnostics`` for several processes."""

from diagnostics.cli import main

main()
