"""One module per family of architectures; every module offers ``load(checkpoint, model) -> LoadedModel``."""
