"""The demonstration: real digits and experts that help, ignore and contradict each other."""
