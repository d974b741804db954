"""Real text tasks from Debian package descriptions, and MiniLM encoders fine-tuned on each."""
