"""``python -m diagnostics``, and ``torchrun --nproc-per-node N -m diagnostics`` for several processes."""

from diagnostics.cli import main

if __name__ == "__main__":
    main()
