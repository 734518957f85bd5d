"""The networks of torchvision: ``detectors`` and ``segmenters`` load them, the other modules are their parts."""
