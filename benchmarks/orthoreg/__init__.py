"""Fine-tuning with and without OrthoReg, and what it does to experts and merges."""
