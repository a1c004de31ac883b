"""The loop and what makes it exact: seeded streams, seeded order, atomic checkpoints. It knows no family, no method by name."""
