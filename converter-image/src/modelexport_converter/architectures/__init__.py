"""One module or package per family of architectures; its loader offers ``load(checkpoint, model) -> LoadedModel``."""
