"""What benchmarks share: multiple choice, generated text, programs, agents, and how answers are read from replies."""
