"""YOLOv4: ``loader`` reads a checkpoint, ``network`` is the network of its weights."""
