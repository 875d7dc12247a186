"""Search strategies: stateless ask/tell objects over an explicit tree. One strategy per file."""
