"""Does task arithmetic compose? A small language model, its fine-tunes on tasks and their compositions, and merges."""
