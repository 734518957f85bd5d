"""YOLOv8: ``loader`` reads a checkpoint.

``network`` builds the network from weights alone, ``tree`` from the modules in a pickle, whose layers
``ultralytics_layers`` builds. Both use ``blocks`` and ``decoder``. ``families`` tells the families of networks apart.
"""
