"""The reasoning cores: language models that continue prompts. One backend per file."""
